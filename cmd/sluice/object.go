package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// object is a tenant or a device as JSON has it. Members that this program does
// not know stay what they are.
type object = map[string]any

// objectFlags describe the members of an object that is created or changed.
type objectFlags struct {
	file              string
	ext, defaults     []string
	enabled, disabled bool
	lists             []listFlag
	extra             func(object) error // puts what further flags say; nil = none
}

// listFlag is a member that is a list of texts.
type listFlag struct {
	flag, member string
	values       []string
}

func (f *objectFlags) add(cmd *cobra.Command, extra func(*cobra.Command) func(object) error) {
	flags := cmd.Flags()
	flags.StringVar(&f.file, "file", "", "the object, or members of it, as JSON from a `file`; - is standard input")
	flags.StringArrayVar(&f.ext, "ext", nil, "a member of ext, `key=value`; repeatable. A value that is JSON is taken as JSON, null removes the member")
	flags.StringArrayVar(&f.defaults, "default", nil, "a member of defaults, `key=value`, likewise")
	flags.BoolVar(&f.enabled, "enabled", false, "enable it")
	flags.BoolVar(&f.disabled, "disabled", false, "disable it")
	for i := range f.lists {
		l := &f.lists[i]
		flags.StringSliceVar(&l.values, l.flag, nil, "`"+l.member+"`, by commas or repeated; '' for none")
	}
	flags.SetNormalizeFunc(asInAPI)
	if extra != nil {
		f.extra = extra(cmd)
	}
}

// asInAPI lets flags be spelled as the members of the API are.
func asInAPI(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	switch name {
	case "memberOf":
		name = "member-of"
	case "viaGroups":
		name = "via-groups"
	}
	return pflag.NormalizedName(name)
}

// object reads the file and puts the flags over it. It is a merge patch (RFC
// 7396): null stands for a member to remove.
func (f *objectFlags) object(cmd *cobra.Command) (object, error) {
	o := object{}
	if f.file != "" {
		content, err := f.content(cmd)
		if err != nil {
			return nil, err
		}
		if o, err = decodeObject(content); err != nil {
			return nil, fmt.Errorf("--file %s: %w", f.file, err)
		}
	}
	for _, m := range []struct {
		flag, member string
		pairs        []string
	}{{"ext", "ext", f.ext}, {"default", "defaults", f.defaults}} {
		if err := setPairs(o, m.member, m.pairs); err != nil {
			return nil, fmt.Errorf("--%s %w", m.flag, err)
		}
	}
	if f.enabled && f.disabled {
		return nil, fmt.Errorf("--enabled and --disabled: expected one of them")
	}
	if f.enabled || f.disabled {
		o["enabled"] = f.enabled
	}
	for _, l := range f.lists {
		if cmd.Flags().Changed(l.flag) {
			o[l.member] = slices.DeleteFunc(slices.Clone(l.values), func(s string) bool { return s == "" })
		}
	}
	if f.extra != nil {
		return o, f.extra(o)
	}
	return o, nil
}

func (f *objectFlags) content(cmd *cobra.Command) ([]byte, error) {
	if f.file == "-" {
		content, _, err := readInput(cmd, "-")
		return content, err
	}
	return readFile(f.file)
}

// decodeObject reads one JSON object. Numbers stay what they are.
func decodeObject(content []byte) (object, error) {
	var o object
	if err := decodeJSON(content, &o); err != nil {
		return nil, err
	}
	if o == nil {
		return nil, fmt.Errorf("null; expected a JSON object")
	}
	return o, nil
}

func decodeJSON(content []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("not the JSON that is expected: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("more than one JSON value")
	}
	return nil
}

// setPairs puts key=value into a member that is an object.
func setPairs(o object, member string, pairs []string) error {
	for _, p := range pairs {
		key, text, ok := strings.Cut(p, "=")
		if !ok || key == "" {
			return fmt.Errorf("%q: expected key=value", p)
		}
		inner, ok := o[member].(object)
		if !ok {
			inner = object{}
			o[member] = inner
		}
		inner[key] = jsonOrText(text)
	}
	return nil
}

// jsonOrText is the value that a text stands for: itself, if it is no JSON.
func jsonOrText(text string) any {
	var v any
	if decodeJSON([]byte(text), &v) != nil {
		return text
	}
	return v
}

// without removes what a merge patch says to remove, to make a whole object of it.
func without(o object) object {
	out := object{}
	for k, v := range o {
		switch v := v.(type) {
		case nil:
		case object:
			out[k] = without(v)
		default:
			out[k] = v
		}
	}
	return out
}

// printObject shows an object to a person: a line for each value, with the path
// to it. More rows come first and last.
func printObject(out io.Writer, first, last [][2]string, content []byte) error {
	o, err := decodeObject(content)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, row := range slices.Concat(first, flatten("", o), last) {
		rows = append(rows, row[:])
	}
	return printRows(out, rows)
}

// flatten makes rows of the values of an object.
func flatten(path string, o object) (rows [][2]string) {
	for _, k := range slices.Sorted(maps.Keys(o)) {
		at := k
		if path != "" {
			at = path + "." + k
		}
		if inner, ok := o[k].(object); ok && len(inner) > 0 {
			rows = append(rows, flatten(at, inner)...)
			continue
		}
		rows = append(rows, [2]string{at, inWords(o[k])})
	}
	return rows
}

// inWords is a value for a person: texts bare, lists of texts by commas.
func inWords(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case bool:
		return yesNo(v)
	case []any:
		words := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok {
				return compact(v)
			}
			words[i] = s
		}
		return strings.Join(words, ", ")
	}
	return compact(v)
}

func compact(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// short cuts what would make a table too wide.
func short(text string, most int) string {
	r := []rune(oneLine(text))
	if len(r) <= most {
		return string(r)
	}
	return string(r[:most-1]) + "…"
}
