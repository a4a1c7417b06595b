package template

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Options says what a stack is made of. Stack, Region and Account are what the
// pseudo parameters name.
type Options struct {
	Stack, Region, Account string
	Parameters             map[string]string
	// Secret looks a key up in a secret: {{resolve:secretsmanager:SECRET:SecretString:KEY}}.
	Secret func(secret, key string) (string, error)
}

// Resource is what a template learns of a resource that was made.
type Resource struct {
	Ref        string
	Attributes map[string]string // of GetAtt
}

// Stack is a template with its parameters. Not safe for concurrent use.
type Stack struct {
	o          Options
	file       string
	parameters map[string]any // string, or []any of a list
	conditions map[string]*yaml.Node
	resources  map[string]*resource
	outputs    map[string]*yaml.Node
	made       map[string]Resource
}

type resource struct {
	Type       string    `yaml:"Type"`
	Condition  string    `yaml:"Condition"`
	Properties yaml.Node `yaml:"Properties"`
}

// Open reads a template and checks the parameters.
func Open(file string, o Options) (*Stack, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var t struct {
		Parameters map[string]struct {
			Type           string   `yaml:"Type"`
			Default        *string  `yaml:"Default"`
			AllowedPattern string   `yaml:"AllowedPattern"`
			AllowedValues  []string `yaml:"AllowedValues"`
			MinValue       *float64 `yaml:"MinValue"`
			MaxValue       *float64 `yaml:"MaxValue"`
		} `yaml:"Parameters"`
		Conditions map[string]yaml.Node `yaml:"Conditions"`
		Resources  map[string]*resource `yaml:"Resources"`
		Outputs    map[string]struct {
			Value yaml.Node `yaml:"Value"`
		} `yaml:"Outputs"`
	}
	if err := yaml.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	s := &Stack{o: o, file: file, resources: t.Resources, parameters: map[string]any{}, conditions: map[string]*yaml.Node{},
		outputs: map[string]*yaml.Node{}, made: map[string]Resource{}}
	for name, p := range t.Parameters {
		check := limits{p.Type, p.Default, p.AllowedPattern, p.AllowedValues, p.MinValue, p.MaxValue}
		given, ok := o.Parameters[name]
		value, err := check.value(given, ok)
		if err != nil {
			return nil, fmt.Errorf("%s: parameter %s: %w", file, name, err)
		}
		s.parameters[name] = value
	}
	for name := range o.Parameters {
		if _, ok := t.Parameters[name]; !ok {
			return nil, fmt.Errorf("%s: there is no parameter %s", file, name)
		}
	}
	for name, n := range t.Conditions {
		s.conditions[name] = &n
	}
	for name, o := range t.Outputs {
		s.outputs[name] = &o.Value
	}
	return s, nil
}

// limits are what a parameter may be.
type limits struct {
	kind     string
	preset   *string
	pattern  string
	allowed  []string
	min, max *float64
}

func (l limits) value(given string, ok bool) (any, error) {
	if !ok {
		if l.preset == nil {
			return nil, fmt.Errorf("has no default and is not given")
		}
		given = *l.preset
	}
	if len(l.allowed) > 0 && !slices.Contains(l.allowed, given) {
		return nil, fmt.Errorf("%q: expected one of %v", given, l.allowed)
	}
	if l.pattern != "" {
		re, err := regexp.Compile("^(?:" + l.pattern + ")$")
		if err != nil {
			return nil, err
		}
		if !re.MatchString(given) {
			return nil, fmt.Errorf("%q does not match %s", given, l.pattern)
		}
	}
	switch l.kind {
	case "Number":
		n, err := strconv.ParseFloat(given, 64)
		if err != nil || l.min != nil && n < *l.min || l.max != nil && n > *l.max {
			return nil, fmt.Errorf("%q is no number within its limits", given)
		}
	case "CommaDelimitedList":
		list := []any{}
		for part := range strings.SplitSeq(given, ",") {
			list = append(list, strings.TrimSpace(part))
		}
		return list, nil
	}
	return given, nil
}

// Made tells what was made of a resource. Name may also be what SAM makes of one, such as
// Identity.Alias.
func (s *Stack) Made(name string, r Resource) { s.made[name] = r }

// Has reports whether a resource is there and its condition holds.
func (s *Stack) Has(name string) (bool, error) {
	r, ok := s.resources[name]
	if !ok || r.Condition == "" {
		return ok, nil
	}
	return s.condition(r.Condition)
}

// Names are the resources of a type whose condition holds, sorted.
func (s *Stack) Names(kind string) (names []string, err error) {
	for name, r := range s.resources {
		if r.Type != kind {
			continue
		}
		ok, err := s.Has(name)
		if err != nil {
			return nil, err
		}
		if ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Properties are those of a resource, with strings for all scalars.
func (s *Stack) Properties(name string) (map[string]any, error) {
	r, ok := s.resources[name]
	if !ok {
		return nil, fmt.Errorf("%s: there is no resource %s", s.file, name)
	}
	v, err := s.eval(&r.Properties)
	if err != nil {
		return nil, fmt.Errorf("%s: resource %s: %w", s.file, name, err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s: resource %s has no properties", s.file, name)
	}
	return m, nil
}

// Output is the value of an output.
func (s *Stack) Output(name string) (string, error) {
	n, ok := s.outputs[name]
	if !ok {
		return "", fmt.Errorf("%s: there is no output %s", s.file, name)
	}
	v, err := s.eval(n)
	if err != nil {
		return "", fmt.Errorf("%s: output %s: %w", s.file, name, err)
	}
	return fmt.Sprint(v), nil
}
