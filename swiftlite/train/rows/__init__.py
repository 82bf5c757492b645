"""Rows on their way to the model: encoded once and cached, or streamed; packed, and put together into batches."""
