"""Drawing: boxes on images, contact sheets, frames of videos, and the style that all figures share."""
