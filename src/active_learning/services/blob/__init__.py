"""Blobs of Azure Storage, as fsspec sees them.

``files.filesystem_at`` tells fsspec which class reads ``abfs://`` URLs; nothing of
Azure is imported before the first blob is touched.
"""
