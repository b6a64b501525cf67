"""The checks of an audit, and what they look at; `retinamask.evaluation.audit` puts them together."""
