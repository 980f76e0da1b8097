"""Problems as people hold them: arrays, dicts, dimod models, files."""
