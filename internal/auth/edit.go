package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"

	"github.com/sluice-iot/sluice/internal/iot"
)

// header opens a file that is written for the first time.
const header = "# Who may connect, and what each may do. Add entries with `sluice identity add`;\n# a change takes effect within a second or two.\n"

// AddIdentity adds an application to the identities file, which is created for its
// owner alone if need be, and returns its new secret of 256 random bits: the only
// time it can be seen. Everything else in the file stays. The error wraps
// iot.ErrExists if the name is taken and iot.ErrInvalid if an authority is wrong.
func AddIdentity(path, name string, authorities ...Authority) (secret string, err error) {
	secret = GenerateSecret()
	return secret, AddIdentityWith(path, name, secret, authorities...)
}

// AddIdentityWith is AddIdentity with a secret that the caller has generated
// and kept first.
func AddIdentityWith(path, name, secret string, authorities ...Authority) error {
	hash, err := HashSecret(secret)
	if err != nil {
		return err
	}
	y := identityYAML{Name: name, Secret: hash}
	for _, a := range authorities {
		y.Authorities = append(y.Authorities, yamlAuthority(a))
	}
	if _, err := Compile(authorities); err != nil {
		return iot.Errorf(iot.ErrInvalid, "identity %q: %v", name, err)
	}
	return addEntry(path, "identities", name, y)
}

// AddOperator adds an operator with the given activities, Read, Write and Export, per
// tenant; "*" is every tenant. For the rest see [AddIdentity].
func AddOperator(path, name string, scopes map[string]Activity) (secret string, err error) {
	secret = GenerateSecret()
	return secret, AddOperatorWith(path, name, secret, scopes)
}

// AddOperatorWith is AddOperator with a secret that the caller has generated
// and kept first.
func AddOperatorWith(path, name, secret string, scopes map[string]Activity) error {
	hash, err := HashSecret(secret)
	if err != nil {
		return err
	}
	return addEntry(path, "operators", name, operatorYAML{Name: name, Secret: hash, Scopes: yamlScopes(scopes)})
}

// AddCertifiedOperator adds an operator who has no secret and logs in by a client
// certificate: its common name, or its subject in the form CN=alice,O=ACME.
func AddCertifiedOperator(path, name, certificate string, scopes map[string]Activity) error {
	if certificate == "" || strings.ContainsFunc(certificate, unicode.IsControl) {
		return iot.Errorf(iot.ErrInvalid, "operator %q: certificate %q: expected a common name, or a subject such as CN=alice,O=ACME", name, certificate)
	}
	return addEntry(path, "operators", name, operatorYAML{Name: name, Certificate: certificate, Scopes: yamlScopes(scopes)})
}

func yamlScopes(scopes map[string]Activity) (out []scopeYAML) {
	for _, tenant := range slices.Sorted(maps.Keys(scopes)) {
		out = append(out, scopeYAML{Tenant: tenant, May: words(scopes[tenant])})
	}
	return out
}

func yamlAuthority(a Authority) authorityYAML {
	if a.Operation != "" {
		return authorityYAML{Operation: a.Operation}
	}
	return authorityYAML{Address: a.Address, May: words(a.May)}
}

func words(a Activity) []string {
	var out []string
	for _, one := range []Activity{Read, Write, Execute, Export} {
		if a&one != 0 {
			out = append(out, one.String())
		}
	}
	return out
}

func addEntry(path, list, name string, value any) error {
	if name == "" || !printable(name) {
		return iot.Errorf(iot.ErrInvalid, "name %q: expected printable characters and no spaces", name)
	}
	unlock, err := lockFolder(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = []byte(header), nil
	}
	if err != nil {
		return fmt.Errorf("identities: %w", err)
	}
	if isPermissions(data) {
		return iot.Errorf(iot.ErrInvalid, "%s has Hono's format, which is read but not written; edit it by hand", path)
	}
	next, err := withEntry(path, data, list, name, value)
	if err != nil {
		return err
	}
	return replaceFile(path, next)
}

func printable(s string) bool {
	for _, r := range s {
		if r <= ' ' || r == 0x7f {
			return false
		}
	}
	return true
}

// withEntry returns the file with one entry more.
func withEntry(path string, data []byte, list, name string, value any) ([]byte, error) {
	before, err := parse(path, data, true)
	if err != nil {
		return nil, err
	}
	if before.entries[name] != nil && list == "identities" || before.operators[name] != nil && list == "operators" {
		return nil, iot.Errorf(iot.ErrExists, "%q exists already in %s", name, path)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var entry yaml.Node
	if err := entry.Encode(value); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	appendTo(&doc, list, &entry)
	var out bytes.Buffer
	if doc.Kind == 0 || len(bytes.TrimSpace(data)) > 0 && isOnlyComments(data) {
		out.Write(data) // the parser drops the comments of a file without content
	}
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	after, err := parse(path, out.Bytes(), true)
	if err != nil {
		return nil, fmt.Errorf("adding %q: %w", name, err)
	}
	if len(after.entries)+len(after.operators) != len(before.entries)+len(before.operators)+1 {
		return nil, fmt.Errorf("%s: adding %q would change other entries; edit the file by hand", path, name)
	}
	return out.Bytes(), nil
}

func isOnlyComments(data []byte) bool {
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}

// appendTo adds the entry to the list at the top level, which it makes if need be.
func appendTo(doc *yaml.Node, list string, entry *yaml.Node) {
	if doc.Kind == 0 || len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		doc.Kind, doc.Content = yaml.DocumentNode, []*yaml.Node{{Kind: yaml.MappingNode}}
	}
	top := doc.Content[0]
	for i := 0; i+1 < len(top.Content); i += 2 {
		if top.Content[i].Value != list {
			continue
		}
		if v := top.Content[i+1]; v.Kind != yaml.SequenceNode {
			*v = yaml.Node{Kind: yaml.SequenceNode, FootComment: v.FootComment}
		} else if len(v.Content) == 0 {
			v.Style &^= yaml.FlowStyle
		}
		top.Content[i+1].Content = append(top.Content[i+1].Content, entry)
		return
	}
	top.Content = append(top.Content,
		&yaml.Node{Kind: yaml.ScalarNode, Value: list},
		&yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{entry}})
}

// replaceFile writes beside the file and renames, so that readers see the old or
// the new one whole.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".identities-*") // mode 0600
	if err != nil {
		return fmt.Errorf("identities: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("identities: %w", err)
	}
	return nil
}
