package store

import (
	"path/filepath"
	"strings"
)

// gpt4AllDirs are GPT4All's folder of models: the one in its settings, then the
// default one.
func gpt4AllDirs(e Env) (dirs []string) {
	ini := under(e.Home, ".config/nomic.ai/GPT4All.ini")
	switch e.OS {
	case "windows":
		ini = under(e.Get("APPDATA"), "nomic.ai/GPT4All.ini")
		dirs = under(e.Get("LOCALAPPDATA"), "nomic.ai/GPT4All")
	case "darwin":
		dirs = under(e.Home, "Library/Application Support/nomic.ai/GPT4All")
	default:
		dirs = under(e.Home, ".local/share/nomic.ai/GPT4All")
	}
	for _, path := range ini {
		b, err := readSmall(path, 1<<20)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if dir, ok := strings.CutPrefix(strings.TrimSpace(line), "modelPath="); ok && filepath.IsAbs(dir) {
				dirs = append([]string{filepath.Clean(dir)}, dirs...)
			}
		}
	}
	return dirs
}
