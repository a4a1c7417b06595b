package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/sluice-iot/sluice/internal/config/strictyaml"
)

// Options says where the configuration comes from.
type Options struct {
	// File is the path of --config; "" = that of SLUICE_CONFIG, or none.
	File string
	// Flags are the settings given on the command line.
	Flags []Flag
	// Env is the environment in the form of os.Environ.
	Env []string
	// Listeners is the default list; nil = [DefaultListeners].
	Listeners []Listener
	// Find makes ./data the data folder if it exists and nothing else was named:
	// for commands that look for an installation instead of starting one.
	Find bool
	// NoData allows that there is no data folder, for programs that may keep
	// nothing: Data is "" then, which [OpenData] refuses.
	NoData bool
}

// Flag is a setting given on the command line.
type Flag struct {
	Path  string // such as data or adapters.http.realm
	Value string // YAML text for lists
	Name  string // for people, such as --data
}

// Loaded is a configuration in force and the source of each of its values.
type Loaded struct {
	Config
	// Warnings are for the log: likely slips in the environment, and what
	// insecure allowed.
	Warnings []string
	sources  map[string]Source
}

// Source says where a value came from.
type Source struct {
	Kind   string // default, file, environment, flag
	Detail string // file:line, the variable, the flag; "" for default
}

func (s Source) String() string {
	if s.Detail == "" {
		return s.Kind
	}
	return s.Kind + " " + s.Detail
}

// Load puts the configuration together and checks it. Its errors are one line and
// name the file and line, the variable or the flag.
func Load(o Options) (*Loaded, error) {
	l := &Loaded{Config: Defaults(), sources: map[string]Source{}}
	if o.Listeners != nil {
		l.Listeners = o.Listeners
	}
	env := environment(o.Env)
	file := o.File
	if file == "" {
		file = env["SLUICE_CONFIG"]
	}
	if file != "" {
		if err := l.readFile(file); err != nil {
			return nil, err
		}
	}
	if err := l.readEnvironment(env); err != nil {
		return nil, err
	}
	if err := l.readFlags(o.Flags); err != nil {
		return nil, err
	}
	if err := l.resolvePaths(file, env, o); err != nil {
		return nil, err
	}
	if err := l.validate(); err != nil {
		return nil, err
	}
	return l, nil
}

func environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, e := range environ {
		if k, v, ok := strings.Cut(e, "="); ok {
			env[k] = v
		}
	}
	return env
}

func (l *Loaded) readFile(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("configuration file: %w", short(err))
	}
	lines, err := strictyaml.Decode(file, data, &l.Config)
	if err != nil {
		return err
	}
	for path, line := range lines {
		l.sources[path] = Source{Kind: "file", Detail: fmt.Sprintf("%s:%d", file, line)}
	}
	return nil
}

// EnvName is the variable for a path: SLUICE_ADAPTERS_HTTP_MAX_PAYLOAD_SIZE.
func EnvName(path string) string {
	return "SLUICE_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

func (l *Loaded) readEnvironment(env map[string]string) error {
	known := map[string]bool{}
	var names []string
	for _, f := range strictyaml.Paths(reflect.ValueOf(&l.Config).Elem()) {
		name := EnvName(f.Path)
		known[name] = true
		names = append(names, name)
		text, ok := env[name]
		if !ok {
			continue
		}
		if err := strictyaml.Value(text, f.Value.Addr().Interface()); err != nil {
			return fmt.Errorf("environment variable %s: %w", name, err)
		}
		l.sources[f.Path] = Source{Kind: "environment", Detail: name}
	}
	l.warnSlips(env, known, names)
	return nil
}

// warnSlips names variables that look like a setting but are none. They are no
// error, because container platforms add variables of their own after the name of
// a service.
func (l *Loaded) warnSlips(env map[string]string, known map[string]bool, names []string) {
	for name := range env {
		if !strings.HasPrefix(name, "SLUICE_") || known[name] {
			continue
		}
		if near := strictyaml.Nearest(name, names); strictyaml.Distance(name, near) <= 2 {
			l.Warnings = append(l.Warnings, fmt.Sprintf("environment variable %s is not a setting; nearest known: %s", name, near))
		}
	}
}

func (l *Loaded) readFlags(flags []Flag) error {
	fields := strictyaml.Paths(reflect.ValueOf(&l.Config).Elem())
	for _, flag := range flags {
		field, err := find(fields, flag.Path)
		if err != nil {
			return fmt.Errorf("%s: %w", flag.Name, err)
		}
		if err := strictyaml.Value(flag.Value, field.Value.Addr().Interface()); err != nil {
			return fmt.Errorf("%s: %w", flag.Name, err)
		}
		l.sources[flag.Path] = Source{Kind: "flag", Detail: flag.Name}
	}
	return nil
}

func find(fields []strictyaml.Field, path string) (strictyaml.Field, error) {
	var known []string
	for _, f := range fields {
		if f.Path == path {
			return f, nil
		}
		known = append(known, f.Path)
	}
	return strictyaml.Field{}, fmt.Errorf("unknown setting %q; nearest known: %q", path, strictyaml.Nearest(path, known))
}

// resolvePaths makes paths absolute. Those in the file are relative to the file's
// folder, except identities, which is relative to the data folder; those of flags
// and the environment are relative to the working folder.
func (l *Loaded) resolvePaths(file string, env map[string]string, o Options) error {
	base := ""
	if file != "" {
		base = filepath.Dir(file)
	}
	fromFile := func(path string) bool { return l.Source(path).Kind == "file" }
	relativeTo := func(dir string, p *string) {
		if *p != "" && dir != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	if l.Data == "" {
		data, err := defaultData(env, o.Find)
		if err != nil && !o.NoData {
			return err
		}
		l.Data = data
	} else if fromFile("data") {
		relativeTo(base, &l.Data)
	}
	var err error
	if l.Data != "" {
		if l.Data, err = filepath.Abs(l.Data); err != nil {
			return fmt.Errorf("data: %w", err)
		}
	}
	switch {
	case l.Identities == "":
		l.Identities = filepath.Join(l.Data, "identities.yaml")
	case fromFile("identities"):
		relativeTo(l.Data, &l.Identities)
	}
	if l.Identities, err = filepath.Abs(l.Identities); err != nil {
		return fmt.Errorf("identities: %w", err)
	}
	for path, p := range map[string]*string{"tls.certificate": &l.TLS.Certificate, "tls.key": &l.TLS.Key, "tls.ca": &l.TLS.CA, "functions.token-file": &l.Functions.TokenFile, "functions.ca": &l.Functions.CA} {
		if fromFile(path) {
			relativeTo(base, p)
		}
	}
	if fromFile("identity-providers") {
		for i := range l.IdentityProviders {
			relativeTo(base, &l.IdentityProviders[i].ClientSecretFile)
			relativeTo(base, &l.IdentityProviders[i].CA)
		}
	}
	if fromFile("listeners") {
		for i := range l.Listeners {
			if t := l.Listeners[i].TLS; t != nil {
				relativeTo(base, &t.Certificate)
				relativeTo(base, &t.Key)
				relativeTo(base, &t.ClientCA)
				for k := range t.More {
					relativeTo(base, &t.More[k].Certificate)
					relativeTo(base, &t.More[k].Key)
				}
			}
		}
	}
	return nil
}

// Source returns where the value at path came from; an item of a list comes from
// where the list came from.
func (l *Loaded) Source(path string) Source {
	for path != "" {
		if s, ok := l.sources[path]; ok {
			return s
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return Source{Kind: "default"}
}

// short drops the operation from a file error: "sluice.yaml: no such file".
func short(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Path, p.Err)
	}
	return err
}
