package arch

import (
	"strings"
	"testing"

	"weigh/inspect/model"
)

// meta is metadata written out by hand.
type meta map[string]any

func (m meta) Lookup(key string) (any, bool) { v, ok := m[key]; return v, ok }

func TestRows(t *testing.T) {
	for name, row := range table {
		if row.Name != name {
			t.Errorf("row %q is registered as %q", row.Name, name)
		}
		if row.Source == "" {
			t.Errorf("%s: no source", name)
		}
		if row.Build == nil {
			t.Errorf("%s: no graph", name)
		}
	}
}

func TestLoadRejects(t *testing.T) {
	base := func() meta {
		return meta{
			"general.architecture":          "llama",
			"llama.block_count":             int64(2),
			"llama.context_length":          int64(4096),
			"llama.embedding_length":        int64(64),
			"llama.attention.head_count":    int64(4),
			"llama.feed_forward_length":     int64(128),
			"llama.attention.head_count_kv": int64(2),
		}
	}
	tests := map[string]struct {
		key   string
		value any
		want  string
	}{
		"no architecture":          {"general.architecture", nil, "general.architecture"},
		"architecture is a number": {"general.architecture", int64(3), "general.architecture"},
		"no layers":                {"llama.block_count", nil, "llama.block_count"},
		"zero layers":              {"llama.block_count", int64(0), "llama.block_count"},
		"a billion layers":         {"llama.block_count", int64(1e9), "llama.block_count"},
		"layers are text":          {"llama.block_count", "two", "llama.block_count"},
		"negative width":           {"llama.embedding_length", int64(-1), "llama.embedding_length"},
		"too few heads listed":     {"llama.attention.head_count", []int64{4}, "llama.attention.head_count"},
		"negative heads":           {"llama.attention.head_count", int64(-4), "llama.block_count"},
		"half-rotated heads":       {"llama.rope.dimension_count", int64(8), "llama.rope.dimension_count"},
		"more experts used":        {"llama.expert_used_count", int64(9), "llama.expert_used_count"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := base()
			if tt.value == nil {
				delete(m, tt.key)
			} else {
				m[tt.key] = tt.value
			}
			_, err := Load(model.Source{Meta: m})
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("Load() error = %v, want one about %s", err, tt.want)
			}
		})
	}
	if _, err := Load(model.Source{Meta: base()}); err != nil {
		t.Errorf("the base is rejected: %v", err)
	}
}
