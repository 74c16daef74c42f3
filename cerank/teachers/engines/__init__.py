"""What answers calls: OpenAI-compatible servers, their Batch API, and models in this process."""
