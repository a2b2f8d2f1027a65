"""`pianobind app`: a page to search, see and play a corpus. Only `page` needs gradio."""
