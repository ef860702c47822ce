"""The standalone HTTP service that does every sandbox operation with llm-sandbox."""
