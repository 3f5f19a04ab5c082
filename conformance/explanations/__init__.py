"""Why a model's layer, or a request, gets its backend: what is asked, and the answer's reasons."""
