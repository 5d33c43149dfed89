package store

import (
	"os"
	"path/filepath"
	"strings"
)

// janDirs are the models in Jan's data folder.
func janDirs(e Env) []string {
	var data []string
	switch e.OS {
	case "windows":
		data = under(e.Get("APPDATA"), "Jan/data")
	case "darwin":
		data = under(e.Home, "Library/Application Support/Jan/data")
	default:
		data = append(under(e.Home, ".local/share/Jan/data"), under(e.Home, ".config/Jan/data")...)
	}
	data = append(data, under(e.Home, "jan")...)
	var dirs []string
	for _, d := range data {
		dirs = append(dirs, under(d, "llamacpp/models", "models")...)
	}
	return dirs
}

// janModel is Jan's description of a model. An imported one stays where it is.
const janModel = "model.yml"

// janImport adds the file that a model.yml in dir says is elsewhere.
func (w *walker) janImport(dir, yml string) {
	b, err := readSmall(yml, 1<<16)
	if err != nil || w.kind != Jan {
		return
	}
	var m Model
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.Trim(strings.TrimSpace(value), `"'`)
		if !filepath.IsAbs(value) || strings.HasPrefix(filepath.Clean(value), w.root+string(filepath.Separator)) {
			continue
		}
		switch strings.TrimSpace(key) {
		case "model_path":
			m.Path, m.Files = value, []string{value}
		case "mmproj_path":
			m.Projector = value
		}
	}
	if m.Path == "" {
		return
	}
	switch info, err := os.Stat(m.Path); {
	case err != nil:
		m.Fault = err
	case !info.Mode().IsRegular():
		m.Fault = errSpecial
	default:
		m.Bytes = info.Size()
	}
	w.add(dir, "", m)
}
