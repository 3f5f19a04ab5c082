"""Models as attention sees them: which kinds of layers they have, of which shapes.

``presets`` are models by name, ``config_file`` reads any config.json of Hugging Face; both give a
:class:`~conformance.models.layers.Model`. Nothing here asks a network.
"""
