package store

import (
	"encoding/json"
	"path/filepath"
	"strings"
)

// lmStudioDirs are LM Studio's folder of downloads, PUBLISHER/REPO/FILE.
func lmStudioDirs(e Env) []string {
	if e.Home == "" {
		return nil
	}
	home := filepath.Join(e.Home, ".lmstudio")
	if b, err := readSmall(filepath.Join(e.Home, ".lmstudio-home-pointer"), 4096); err == nil && len(b) > 0 {
		home = strings.TrimSpace(string(b))
	}
	var dirs []string
	var settings struct {
		Folder string `json:"downloadsFolder"`
	}
	if b, err := readSmall(filepath.Join(home, "settings.json"), 1<<20); err == nil && json.Unmarshal(b, &settings) == nil && settings.Folder != "" {
		dirs = append(dirs, settings.Folder)
	}
	return append(dirs, filepath.Join(home, "models"), filepath.Join(e.Home, ".cache", "lm-studio", "models"))
}
