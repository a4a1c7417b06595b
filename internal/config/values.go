package config

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/sluice-iot/sluice/internal/config/strictyaml"
)

// Value is a setting in force.
type Value struct {
	Path   string // such as credit-wait or listeners[0]
	Value  any    // as encoding/json writes it; sizes and durations are text, passwords in URLs are hidden
	Source Source
}

// Text is the value on one line, as YAML writes it.
func (v Value) Text() string {
	var n yaml.Node
	if err := n.Encode(v.Value); err != nil {
		return fmt.Sprint(v.Value)
	}
	n.Style = yaml.FlowStyle
	if n.Kind == yaml.ScalarNode && n.Value == "" {
		return `""`
	}
	text, err := yaml.Marshal(&n)
	if err != nil {
		return fmt.Sprint(v.Value)
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// Values lists what is in force, in the order of the documentation, a list item
// by item.
func (l *Loaded) Values() []Value {
	var out []Value
	for _, f := range strictyaml.Paths(reflect.ValueOf(&l.Config).Elem()) {
		source := l.Source(f.Path)
		if f.Value.Kind() != reflect.Slice || f.Value.Len() == 0 {
			out = append(out, Value{Path: f.Path, Value: shown(f), Source: source})
			continue
		}
		for i := range f.Value.Len() {
			item := strictyaml.Field{Path: fmt.Sprintf("%s[%d]", f.Path, i), Value: f.Value.Index(i)}
			out = append(out, Value{Path: item.Path, Value: shown(item), Source: source})
		}
	}
	return out
}

func shown(f strictyaml.Field) any {
	switch v := f.Value.Interface().(type) {
	case time.Duration:
		return v.String()
	case Size:
		return v.String()
	case string:
		return hidePassword(v)
	default:
		return v
	}
}

// hidePassword replaces the password in a URL.
func hidePassword(text string) string {
	if !strings.Contains(text, "://") {
		return text
	}
	u, err := url.Parse(text)
	if err != nil {
		return "(not a URL)"
	}
	if q := u.Query(); q.Has("password") || q.Has("sslpassword") {
		for _, k := range []string{"password", "sslpassword"} {
			if q.Has(k) {
				q.Set(k, "xxxxx")
			}
		}
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}
