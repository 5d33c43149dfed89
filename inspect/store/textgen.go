package store

// textGenDirs are the usual places of text-generation-webui, which runs from
// wherever it was unpacked.
func textGenDirs(e Env) []string {
	return under(e.Home, "text-generation-webui/user_data/models", "text-generation-webui/models", "textgen/user_data/models")
}
