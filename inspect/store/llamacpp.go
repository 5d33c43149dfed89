package store

// llamaCppDirs are llama.cpp's own cache: where it downloaded to before it came
// to share the Hugging Face cache, and where it takes that to be.
//
// Source: common/common.cpp@v0.5.0, fs_get_cache_directory; common/hf-cache.cpp,
// get_cache_directory.
func llamaCppDirs(e Env) []string {
	if dir := e.Get("LLAMA_CACHE"); dir != "" {
		return []string{dir}
	}
	switch dir := e.Get("XDG_CACHE_HOME"); {
	case e.OS == "windows":
		return under(e.Get("LOCALAPPDATA"), "llama.cpp")
	case e.OS == "darwin":
		return under(e.Home, "Library/Caches/llama.cpp")
	case dir != "":
		return under(dir, "llama.cpp")
	}
	return under(e.Home, ".cache/llama.cpp")
}
