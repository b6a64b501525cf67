"""Images and annotations: one table, one road from file to network input. No TensorFlow here."""
