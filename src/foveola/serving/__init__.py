"""An exported model behind HTTP: batching, the API, the page."""
