package strictyaml

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// maxDepth bounds nesting, so that an alias which contains itself ends.
const maxDepth = 32

// Lines maps the path of each value that was set (adapters.http.realm, or
// listeners for a whole list) to its line in the file, counted from 1.
type Lines map[string]int

// Error is a problem in a file, with the line it stands on.
type Error struct {
	File string
	Line int // 0 = the file as a whole
	Text string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Text)
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text)
}

// Decode sets the fields of the struct that into points to from the YAML
// document in data; fields that the document does not name keep their values.
// A list replaces the list that was there. The file name is used in errors only.
func Decode(file string, data []byte, into any) (Lines, error) {
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return Lines{}, nil // nothing but comments
	case err != nil:
		return nil, &Error{File: file, Text: plain(err)}
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, &Error{File: file, Text: plain(err)}
		}
		return nil, &Error{File: file, Line: second.Line, Text: "a second YAML document; expected one"}
	}
	d := &decoder{file: file, lines: Lines{}, root: reflect.TypeOf(into).Elem()}
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return d.lines, nil
	}
	if err := d.value("", doc.Content[0], reflect.ValueOf(into).Elem(), 0); err != nil {
		return nil, err
	}
	return d.lines, nil
}

// Value sets target, a pointer, from YAML text: the form in which a single value
// comes from a flag or the environment. A list of strings may also be given with
// commas between its items, and a string is taken as it is.
func Value(text string, target any) error {
	v := reflect.ValueOf(target).Elem()
	if scalar(v) {
		return setScalar(v, text)
	}
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String && !strings.HasPrefix(strings.TrimSpace(text), "[") {
		v.SetZero()
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				v.Set(reflect.Append(v, reflect.ValueOf(item).Convert(v.Type().Elem())))
			}
		}
		return nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return errors.New(plain(err))
	}
	if len(doc.Content) == 0 {
		v.SetZero()
		return nil
	}
	d := &decoder{lines: Lines{}, root: v.Type()}
	var e *Error
	err := d.value("", doc.Content[0], v, 0)
	if errors.As(err, &e) {
		return errors.New(e.Text)
	}
	return err
}

type decoder struct {
	file  string
	lines Lines
	root  reflect.Type
}

func (d *decoder) errorf(n *yaml.Node, format string, args ...any) error {
	return &Error{File: d.file, Line: n.Line, Text: fmt.Sprintf(format, args...)}
}

func (d *decoder) value(path string, n *yaml.Node, v reflect.Value, depth int) error {
	if depth > maxDepth {
		return d.errorf(n, "%s: nested deeper than %d levels", path, maxDepth)
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode && path != "" {
		d.lines[path] = n.Line
	}
	if u, ok := v.Addr().Interface().(yamlNode); ok {
		if handled, err := u.FromScalar(n.Kind == yaml.ScalarNode && !isNull(n), n.Value); handled {
			return d.wrap(path, n, err)
		}
	}
	switch {
	case v.Kind() == reflect.Pointer:
		if isNull(n) {
			v.SetZero()
			return nil
		}
		p := reflect.New(v.Type().Elem())
		if err := d.value(path, n, p.Elem(), depth+1); err != nil {
			return err
		}
		v.Set(p)
		return nil
	case scalar(v):
		if n.Kind != yaml.ScalarNode {
			return d.errorf(n, "%s: expected %s, got %s", path, expected(v.Type()), kindName(n))
		}
		if isNull(n) {
			return d.errorf(n, "%s: no value; expected %s", path, expected(v.Type()))
		}
		return d.wrap(path, n, setScalar(v, n.Value))
	case v.Kind() == reflect.Slice:
		return d.list(path, n, v, depth)
	case v.Kind() == reflect.Struct:
		return d.mapping(path, n, v, depth)
	}
	return fmt.Errorf("strictyaml: %s has type %s, which is not read", path, v.Type())
}

// yamlNode lets a struct type accept a scalar as a short form.
type yamlNode interface {
	// FromScalar is told whether the value is a scalar and its text, and
	// reports whether it took it.
	FromScalar(isScalar bool, text string) (handled bool, err error)
}

func (d *decoder) wrap(path string, n *yaml.Node, err error) error {
	if err == nil {
		return nil
	}
	return d.errorf(n, "%s: %v", path, err)
}

func (d *decoder) list(path string, n *yaml.Node, v reflect.Value, depth int) error {
	if isNull(n) {
		v.SetZero()
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return d.errorf(n, "%s: expected a list, got %s", path, kindName(n))
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		if err := d.value(fmt.Sprintf("%s[%d]", path, i), item, out.Index(i), depth+1); err != nil {
			return err
		}
	}
	v.Set(out)
	return nil
}

func (d *decoder) mapping(path string, n *yaml.Node, v reflect.Value, depth int) error {
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return d.errorf(n, "%s: expected keys with values, got %s", orTop(path), kindName(n))
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if first, ok := seen[key.Value]; ok {
			return d.errorf(key, "key %q is given twice in %s; the first is on line %d", key.Value, orTop(path), first)
		}
		seen[key.Value] = key.Line
		field, ok := fieldByTag(v, key.Value)
		if !ok {
			return d.errorf(key, "unknown key %q in %s; nearest known key: %q", key.Value, orTop(path), d.nearestKey(path, key.Value, v.Type()))
		}
		if err := d.value(Join(path, key.Value), n.Content[i+1], field, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// Join appends a key to a path.
func Join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func orTop(path string) string {
	if path == "" {
		return "the top level"
	}
	return path
}

func fieldByTag(v reflect.Value, name string) (reflect.Value, bool) {
	if name == "" || name == "-" {
		return reflect.Value{}, false
	}
	for f := range v.Type().Fields() {
		if tagName(f) == name {
			return v.FieldByIndex(f.Index), true
		}
	}
	return reflect.Value{}, false
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	default:
		return strconv.Quote(n.Value)
	}
}

// plain takes the parser's name out of its message.
func plain(err error) string { return strings.TrimPrefix(err.Error(), "yaml: ") }

func scalar(v reflect.Value) bool {
	if _, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return true
	}
	switch v.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int64, reflect.String:
		return true
	}
	return false
}

func expected(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration such as 10s"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case reflect.PointerTo(t).Implements(reflect.TypeFor[fmt.Stringer]()) && t.Kind() == reflect.Int64:
		return "a size such as 64KiB"
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return "a whole number"
	}
	return "a text"
}

func setScalar(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	if v.Type() == reflect.TypeFor[time.Duration]() {
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is not a duration; expected one such as 10s or 200ms", text)
		}
		v.SetInt(int64(d))
		return nil
	}
	switch v.Kind() {
	case reflect.Bool:
		b, ok := map[string]bool{"true": true, "false": false}[text]
		if !ok {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int64:
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number in range", text)
		}
		v.SetInt(i)
	default:
		v.SetString(text)
	}
	return nil
}
