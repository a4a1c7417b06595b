package strictyaml_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/internal/config/strictyaml"
)

type inner struct {
	Realm string        `yaml:"realm"`
	Idle  time.Duration `yaml:"idle-timeout"`
}

type item struct {
	Role string `yaml:"role"`
	TLS  *inner `yaml:"tls,omitempty"`
}

type short struct {
	Store string `yaml:"store"`
	URL   string `yaml:"url"`
}

func (s *short) FromScalar(isScalar bool, text string) (bool, error) {
	if isScalar {
		*s = short{Store: text}
	}
	return isScalar, nil
}

type file struct {
	Name     string   `yaml:"name"`
	On       bool     `yaml:"on"`
	Count    int      `yaml:"count"`
	Names    []string `yaml:"names"`
	Items    []item   `yaml:"items"`
	HTTP     inner    `yaml:"http"`
	Registry short    `yaml:"registry"`
	Hidden   string
}

func TestDecode(t *testing.T) {
	var got file
	lines, err := strictyaml.Decode("f.yaml", []byte(`# comment
name: a
on: true
count: 3
names: [x, y]
items:
  - {role: r, tls: {realm: z}}
  - {role: s, tls: }
http:
  idle-timeout: 10s
registry: sqlite
`), &got)
	if err != nil {
		t.Fatal(err)
	}
	want := file{
		Name: "a", On: true, Count: 3, Names: []string{"x", "y"},
		Items: []item{{Role: "r", TLS: &inner{Realm: "z"}}, {Role: "s"}},
		HTTP:  inner{Idle: 10 * time.Second}, Registry: short{Store: "sqlite"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for path, line := range map[string]int{"name": 2, "names": 5, "http.idle-timeout": 10, "registry": 11} {
		if lines[path] != line {
			t.Errorf("line of %s: got %d, want %d", path, lines[path], line)
		}
	}
}

func TestDecodeEmpty(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "~\n"} {
		got := file{Name: "kept"}
		if _, err := strictyaml.Decode("f.yaml", []byte(text), &got); err != nil || got.Name != "kept" {
			t.Errorf("%q: got %q, %v", text, got.Name, err)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown":          {"nmae: a", `f.yaml:1: unknown key "nmae" in the top level; nearest known key: "name"`},
		"unknown nested":   {"name: a\nhttp:\n  reelm: b", `f.yaml:3: unknown key "reelm" in http; nearest known key: "realm"`},
		"unknown in list":  {"items:\n- rolle: b", `f.yaml:2: unknown key "rolle" in items[0]; nearest known key: "role"`},
		"misplaced":        {"idle-timeout: 1s", `f.yaml:1: unknown key "idle-timeout" in the top level; nearest known key: "http.idle-timeout"`},
		"go name":          {"Hidden: b", `unknown key "Hidden"`},
		"twice":            {"name: a\nname: b", `f.yaml:2: key "name" is given twice in the top level; the first is on line 1`},
		"duration":         {"http: {idle-timeout: 10}", `f.yaml:1: http.idle-timeout: "10" is not a duration; expected one such as 10s or 200ms`},
		"bool":             {"on: yes", `f.yaml:1: on: "yes" is neither true nor false`},
		"number":           {"count: 9999999999999999999", `f.yaml:1: count: "9999999999999999999" is not a whole number in range`},
		"list for text":    {"name: [a]", `f.yaml:1: name: expected a text, got a list`},
		"text for list":    {"names: a", `f.yaml:1: names: expected a list, got "a"`},
		"text for mapping": {"http: a", `f.yaml:1: http: expected keys with values, got "a"`},
		"no value":         {"name:", `f.yaml:1: name: no value; expected a text`},
		"list at top":      {"- a", `f.yaml:1: the top level: expected keys with values, got a list`},
		"two documents":    {"name: a\n---\nname: b", `a second YAML document`},
		"not yaml":         {"name: [", `f.yaml: line 1`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := strictyaml.Decode("f.yaml", []byte(c.text), new(file))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %v", err)
			}
		})
	}
}

func TestDecodeSelfReference(t *testing.T) {
	if _, err := strictyaml.Decode("f", []byte("items: &a [*a]"), new(file)); err == nil {
		t.Error("want an error")
	}
}

func TestValue(t *testing.T) {
	var f file
	for _, c := range []struct {
		text   string
		target any
	}{
		{"a, b,", &f.Names}, {"17", &f.Count}, {"[{role: q}]", &f.Items}, {"null", &f.Name},
	} {
		if err := strictyaml.Value(c.text, c.target); err != nil {
			t.Errorf("%s: %v", c.text, err)
		}
	}
	want := file{Names: []string{"a", "b"}, Count: 17, Items: []item{{Role: "q"}}, Name: "null"}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Error(diff)
	}
	if err := strictyaml.Value("[{roll: q}]", &f.Items); err == nil || !strings.Contains(err.Error(), `"roll"`) {
		t.Errorf("got %v", err)
	}
}

func TestPaths(t *testing.T) {
	var got []string
	for _, f := range strictyaml.Paths(reflect.ValueOf(file{})) {
		got = append(got, f.Path)
	}
	want := []string{"name", "on", "count", "names", "items", "http.realm", "http.idle-timeout", "registry.store", "registry.url"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"name", "nmae", 1}, {"address", "adress", 1}, {"abc", "xyz", 3}} {
		if got := strictyaml.Distance(c.a, c.b); got != c.want {
			t.Errorf("%s, %s: got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("name: a\nitems: [{role: b, tls: {idle-timeout: 1s}}]"))
	f.Add([]byte("a: &a {b: *a}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		var v file
		_, _ = strictyaml.Decode("f", data, &v)
	})
}
