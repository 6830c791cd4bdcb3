"""Where models come from: hub, folders, GGUF files, and the embedded ones."""
