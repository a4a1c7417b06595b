// Package strictyaml reads YAML into Go structs and refuses what it does not
// know: an unknown key is an error that names the file, the line and the nearest
// known key, a duplicate key and a second document are errors, and so is a value
// that does not fit its field. It reports where each value stood, so that a
// program can show the source of what is in force.
//
// Fields are matched by their `yaml:"name"` tag alone; a field without one is
// never set. Scalars are bool, int, int64, string, time.Duration (as Go writes
// it: 10s) and every type with UnmarshalText. It does not read anchors that refer
// to themselves, merge keys (<<) or custom tags.
//
//	var file struct {
//		Name  string        `yaml:"name"`
//		Wait  time.Duration `yaml:"credit-wait"`
//	}
//	lines, err := strictyaml.Decode("sluice.yaml", data, &file)
//	// lines["credit-wait"] is the line the value stood on
package strictyaml
