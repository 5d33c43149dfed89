package arch

import (
	"strings"
	"testing"

	"weigh/fixtures"
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
		"negative heads":           {"llama.attention.head_count", int64(-4), "llama.attention.head_count: -4 in layer 0"},
		"negative KV heads":        {"llama.attention.head_count_kv", []int64{2, -1}, "llama.attention.head_count_kv: -1 in layer 1"},
		"negative feed-forward":    {"llama.feed_forward_length", []int64{128, -7}, "llama.feed_forward_length: -7 in layer 1"},
		"negative experts":         {"llama.expert_count", int64(-1), "llama.expert_count"},
		"negative experts used":    {"llama.expert_used_count", int64(-2), "llama.expert_used_count"},
		"negative groups":          {"llama.expert_group_count", int64(-1), "llama.expert_group_count"},
		"negative groups used":     {"llama.expert_group_used_count", int64(-1), "llama.expert_group_used_count"},
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

// llama.cpp copies as many flags as the file has, and the layers behind them,
// such as those of multi-token prediction, have no window.
func TestShortWindowPattern(t *testing.T) {
	for _, name := range []string{"spark2_5-Q4_K_M", "step35-mtp-Q4_K_M", "mimo2-mtp-Q4_K_M", "gemma3n-Q4_K_M"} {
		g := fixtures.Model(name)
		for i := range g.KVs {
			if flags, ok := g.KVs[i].Value.([]bool); ok && strings.HasSuffix(g.KVs[i].Key, ".sliding_window_pattern") {
				g.KVs[i].Value = flags[:len(flags)-2]
			}
		}
		m := loadFixture(t, g)
		for il := range m.Layers {
			if il >= m.NLayerAll-2 && m.IsSWA(il) {
				t.Errorf("%s: layer %d of %d has a window", name, il, m.NLayerAll)
			}
		}
		if !m.AnySWA() {
			t.Errorf("%s: no layer has a window", name)
		}
	}
	for _, pattern := range []any{nil, int64(4)} {
		_, err := Load(model.Source{Meta: meta{
			"general.architecture": "gemma4", "gemma4.block_count": int64(2), "gemma4.context_length": int64(4096),
			"gemma4.embedding_length": int64(64), "gemma4.attention.head_count": int64(4), "gemma4.feed_forward_length": int64(128),
			"gemma4.attention.sliding_window": int64(512), "gemma4.attention.sliding_window_pattern": pattern,
		}})
		if err == nil || !strings.Contains(err.Error(), "sliding_window_pattern") {
			t.Errorf("a pattern of %v: error %v, want one about it", pattern, err)
		}
	}
}

func TestEveryArchitectureAsksForTensors(t *testing.T) {
	for _, name := range Names() {
		if Lookup(name).Tensors == nil {
			t.Errorf("%s: nothing says which tensors llama.cpp asks for", name)
		}
	}
}
