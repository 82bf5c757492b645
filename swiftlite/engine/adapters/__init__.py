"""Adapters from their files to the device: read beside the steps, kept in host memory, copied into pools of pages."""
