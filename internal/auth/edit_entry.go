package auth

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/sluice-iot/sluice/internal/config/strictyaml"
	"github.com/sluice-iot/sluice/internal/iot"
)

// Entry is an application or an operator of an identities file, without its secret.
type Entry struct {
	Name        string
	Operator    bool
	HasSecret   bool                // false = it proves itself by a certificate
	Certificate string              // of an operator: common name or subject; "" = none
	Authorities []Authority         // of an application
	Scopes      map[string]Activity // of an operator, by tenant; "*" is every tenant
}

// Change is what becomes of an entry; what is nil stays.
type Change struct {
	Authorities []Authority         // of an application
	Scopes      map[string]Activity // of an operator
	NewSecret   bool                // the one before is good no longer
}

// Entries reads an identities file of Sluice's own format, in its order:
// applications, then operators. The error wraps iot.ErrInvalid for Hono's format.
func Entries(path string) ([]Entry, error) {
	data, err := readEditable(path)
	if err != nil {
		return nil, err
	}
	if _, err := parse(path, data, true); err != nil {
		return nil, err
	}
	var f fileYAML
	if _, err := strictyaml.Decode(path, data, &f); err != nil {
		return nil, err
	}
	var out []Entry
	for _, y := range f.Identities {
		e := Entry{Name: y.Name, HasSecret: y.Secret != ""}
		for _, a := range y.Authorities {
			g, err := a.authority()
			if err != nil {
				return nil, err
			}
			e.Authorities = append(e.Authorities, g)
		}
		out = append(out, e)
	}
	for _, y := range f.Operators {
		scopes, err := compileScopes(y.Scopes)
		if err != nil {
			return nil, err
		}
		out = append(out, Entry{Name: y.Name, Operator: true, HasSecret: y.Secret != "", Certificate: y.Certificate, Scopes: scopes})
	}
	return out, nil
}

func readEditable(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("identities: %w", err)
	}
	if isPermissions(data) {
		return nil, iot.Errorf(iot.ErrInvalid, "%s has Hono's format, which is read but not written; edit it by hand", path)
	}
	return data, nil
}

// RemoveEntry removes an application, or an operator, from the identities file.
// Everything else in it stays. The error wraps iot.ErrNotFound if it is not there.
func RemoveEntry(path, name string, operator bool) error {
	return editEntry(path, name, operator, -1, func(list *yaml.Node, at int) error {
		list.Content = slices.Delete(list.Content, at, at+1)
		if len(list.Content) == 0 {
			list.Style |= yaml.FlowStyle
		}
		return nil
	})
}

// UpdateEntry changes an application, or an operator, and returns its new secret
// if it asked for one: the only time that can be seen. Everything else in the file
// stays. The error wraps iot.ErrNotFound if it is not there and iot.ErrInvalid if
// the change is wrong.
func UpdateEntry(path, name string, operator bool, c Change) (secret string, err error) {
	if operator && c.Authorities != nil || !operator && c.Scopes != nil {
		return "", iot.Errorf(iot.ErrInvalid, "%q: authorities are for applications, scopes for operators", name)
	}
	if _, err := Compile(c.Authorities); err != nil {
		return "", iot.Errorf(iot.ErrInvalid, "identity %q: %v", name, err)
	}
	members := map[string]any{}
	if c.Authorities != nil {
		list := []authorityYAML{}
		for _, a := range c.Authorities {
			list = append(list, yamlAuthority(a))
		}
		members["authorities"] = list
	}
	if c.Scopes != nil {
		members["scopes"] = yamlScopes(c.Scopes)
	}
	if c.NewSecret {
		secret = GenerateSecret()
		if members["secret"], err = HashSecret(secret); err != nil {
			return "", err
		}
	}
	return secret, editEntry(path, name, operator, 0, func(list *yaml.Node, at int) error {
		for _, member := range []string{"secret", "authorities", "scopes"} {
			if v, ok := members[member]; ok {
				if err := setMember(list.Content[at], member, v); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// setMember replaces a member of a mapping, or adds it.
func setMember(entry *yaml.Node, name string, value any) error {
	var v yaml.Node
	if err := v.Encode(value); err != nil {
		return err
	}
	if v.Kind == yaml.SequenceNode {
		v.Style |= yaml.FlowStyle
	}
	for i := 0; i+1 < len(entry.Content); i += 2 {
		if entry.Content[i].Value == name {
			v.LineComment, v.FootComment = entry.Content[i+1].LineComment, entry.Content[i+1].FootComment
			entry.Content[i+1] = &v
			return nil
		}
	}
	entry.Content = append(entry.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, &v)
	return nil
}

// editEntry has one entry edited in the document. more is by how many entries
// there are more afterwards.
func editEntry(path, name string, operator bool, more int, edit func(list *yaml.Node, at int) error) error {
	unlock, err := lockFolder(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	data, err := readEditable(path)
	if err != nil {
		return err
	}
	before, err := parse(path, data, true)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	list, at := findEntry(&doc, name, operator)
	if list == nil {
		return iot.Errorf(iot.ErrNotFound, "there is no %s %q in %s", entryKind(operator), name, path)
	}
	if err := edit(list, at); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	after, err := parse(path, out.Bytes(), true)
	if err != nil {
		return iot.Errorf(iot.ErrInvalid, "%s %q: %v", entryKind(operator), name, err)
	}
	if len(after.entries)+len(after.operators) != len(before.entries)+len(before.operators)+more {
		return fmt.Errorf("%s: the change of %q would change other entries; edit the file by hand", path, name)
	}
	return replaceFile(path, out.Bytes())
}

func entryKind(operator bool) string {
	if operator {
		return "operator"
	}
	return "identity"
}

// findEntry finds the entry in the document; nil where it is not.
func findEntry(doc *yaml.Node, name string, operator bool) (list *yaml.Node, at int) {
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, 0
	}
	key := map[bool]string{false: "identities", true: "operators"}[operator]
	top := doc.Content[0]
	for i := 0; i+1 < len(top.Content); i += 2 {
		if top.Content[i].Value != key || top.Content[i+1].Kind != yaml.SequenceNode {
			continue
		}
		for at, e := range top.Content[i+1].Content {
			if e.Kind == yaml.MappingNode && memberOf(e, "name") == name {
				return top.Content[i+1], at
			}
		}
	}
	return nil, 0
}

func memberOf(entry *yaml.Node, name string) string {
	for i := 0; i+1 < len(entry.Content); i += 2 {
		if entry.Content[i].Value == name {
			return entry.Content[i+1].Value
		}
	}
	return ""
}
