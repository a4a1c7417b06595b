package strictyaml

import (
	"reflect"
	"strings"
)

// Nearest returns the name among known that is closest to name by the number of
// letters to change, or "" if known is empty.
func Nearest(name string, known []string) string {
	best, bestDistance := "", -1
	for _, k := range known {
		if d := Distance(name, k); bestDistance < 0 || d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// Distance is the number of bytes to insert, delete or replace, or neighbours to
// swap, that turns a into b.
func Distance(a, b string) int {
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}

// nearestKey prefers a sibling that looks like a slip of the pen, then the same
// key somewhere else in the file, then the closest sibling.
func (d *decoder) nearestKey(path, name string, t reflect.Type) string {
	siblings := tags(t)
	near := Nearest(name, siblings)
	if near != "" && Distance(name, near) <= max(2, len(name)/4) {
		return near
	}
	for _, full := range Paths(reflect.New(d.root).Elem()) {
		if full.Path != Join(path, name) && (full.Path == name || strings.HasSuffix(full.Path, "."+name)) {
			return full.Path
		}
	}
	return near
}

// tagName is a field's key, without the options that matter for writing only.
func tagName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

func tags(t reflect.Type) []string {
	var out []string
	for f := range t.Fields() {
		if tag := tagName(f); tag != "" && tag != "-" {
			out = append(out, tag)
		}
	}
	return out
}

// Field is one value of a struct and its path, such as adapters.http.realm.
type Field struct {
	Path  string
	Value reflect.Value
}

// Paths lists the values below v, a struct: structs are descended into, lists and
// pointers are single values. Order is that of the fields.
func Paths(v reflect.Value) []Field {
	return appendPaths(nil, "", v)
}

func appendPaths(out []Field, path string, v reflect.Value) []Field {
	for f := range v.Type().Fields() {
		tag := tagName(f)
		if tag == "" || tag == "-" {
			continue
		}
		value, p := v.FieldByIndex(f.Index), Join(path, tag)
		if value.Kind() == reflect.Struct {
			out = appendPaths(out, p, value)
			continue
		}
		out = append(out, Field{Path: p, Value: value})
	}
	return out
}
