package registry_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/sluice-iot/sluice/internal/registry"
)

// valuesAt is what IndexValues shall find, the slow way.
func valuesAt(v any, path []string, elements bool) (texts []string) {
	switch v := v.(type) {
	case map[string]any:
		if len(path) > 0 {
			if member, ok := v[path[0]]; ok {
				return valuesAt(member, path[1:], true)
			}
		}
	case []any:
		if elements {
			for _, e := range v {
				texts = append(texts, valuesAt(e, path, false)...)
			}
		}
	case bool, float64, string:
		if len(path) == 0 {
			texts = append(texts, registry.IndexText(v))
		}
	}
	return texts
}

func distinct(texts []string) (all []string) {
	for _, t := range texts {
		if !slices.Contains(all, t) {
			all = append(all, t)
		}
	}
	return all
}

func FuzzIndexValues(f *testing.F) {
	for _, doc := range []string{
		`{}`, `{"a":1}`, `{"a":{"b":[1,2.50,"x",{"c":true}]}}`, `{"x":{"a":2},"a":{"b":{"a":[[1],2,[]]}}}`,
		` { "a" : [ { "b" : "q\"\\" } , { "b" : null } , "b" ] , "b" : "\u00e4\ud83d\ude00" } `,
		`{"\u0061":{"b":-0,"c":1e-7}}`, `{"a":"\ud800","b":1E400}`, `{"a":[`, `{"a":}`, `{"a" "b"}`, `{"a":{"b":1]}`, `[{"a":1}]`, "{\"a\":\"\xff\"}",
	} {
		f.Add(doc, "a", "b")
	}
	f.Fuzz(func(t *testing.T, doc, first, second string) {
		paths := [][]string{{first}, {first, second}, {first, second, "c"}}
		for _, path := range paths {
			registry.IndexValues([]byte(doc), path) // whatever it is, it ends
		}
		var v any
		if json.Unmarshal([]byte(doc), &v) != nil {
			return
		}
		plain, err := json.Marshal(v) // without members that come twice
		if err != nil {
			return
		}
		for _, path := range paths {
			if len(path) == 1 && path[0] == "enabled" {
				continue
			}
			var want []string
			if _, ok := v.(map[string]any); ok {
				want = distinct(valuesAt(v, path, true))
			}
			if got := registry.IndexValues(plain, path); !slices.Equal(got, want) {
				t.Errorf("%s at %q: got %q, want %q", plain, path, got, want)
			}
		}
	})
}
