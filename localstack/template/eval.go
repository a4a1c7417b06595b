package template

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// ErrNotMade is that of a name that stands for no parameter and no resource that was made.
var ErrNotMade = errors.New("no parameter, and no resource that was made")

// none is AWS::NoValue: what it stands for is not there.
type none struct{}

// eval turns a node into maps, lists and strings.
func (s *Stack) eval(n *yaml.Node) (any, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		v, err := s.function(n)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n.Line, err)
		}
		if text, ok := v.(string); ok {
			return s.resolve(text)
		}
		return v, nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		return s.mapping(n)
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			v, err := s.eval(item)
			if err != nil {
				return nil, err
			}
			if _, gone := v.(none); !gone {
				list = append(list, v)
			}
		}
		return list, nil
	case yaml.ScalarNode:
		return s.resolve(n.Value)
	}
	return nil, fmt.Errorf("line %d: nothing is there", n.Line)
}

func (s *Stack) mapping(n *yaml.Node) (any, error) {
	m := map[string]any{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		v, err := s.eval(n.Content[i+1])
		if err != nil {
			return nil, err
		}
		if _, gone := v.(none); !gone {
			m[n.Content[i].Value] = v
		}
	}
	return m, nil
}

func (s *Stack) function(n *yaml.Node) (any, error) {
	switch n.Tag {
	case "!Ref":
		return s.ref(n.Value)
	case "!GetAtt":
		return s.attribute(n.Value)
	case "!Sub":
		return s.sub(n.Value)
	}
	if n.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("%s: want a list", n.Tag)
	}
	switch n.Tag {
	case "!If":
		if len(n.Content) != 3 {
			return nil, errors.New("!If: want a condition and two values")
		}
		yes, err := s.condition(n.Content[0].Value)
		if err != nil {
			return nil, err
		}
		if yes {
			return s.eval(n.Content[1])
		}
		return s.eval(n.Content[2])
	case "!Join":
		return s.join(n)
	case "!Not", "!Equals":
		return s.truth(n)
	}
	return nil, fmt.Errorf("the function %s is not known here", n.Tag)
}

func (s *Stack) ref(name string) (any, error) {
	switch name {
	case "AWS::NoValue":
		return none{}, nil
	case "AWS::StackName":
		return s.o.Stack, nil
	case "AWS::Region":
		return s.o.Region, nil
	case "AWS::AccountId":
		return s.o.Account, nil
	}
	if v, ok := s.parameters[name]; ok {
		return v, nil
	}
	if r, ok := s.made[name]; ok {
		return r.Ref, nil
	}
	return nil, fmt.Errorf("%s: %w", name, ErrNotMade)
}

func (s *Stack) attribute(text string) (any, error) {
	at := strings.LastIndexByte(text, '.')
	if at < 0 {
		return nil, fmt.Errorf("!GetAtt %s: want a resource and an attribute", text)
	}
	if v, ok := s.made[text[:at]].Attributes[text[at+1:]]; ok {
		return v, nil
	}
	return nil, fmt.Errorf("%s: %w, or does not tell it", text, ErrNotMade)
}

var variable = regexp.MustCompile(`\$\{([^}!]+)\}`)

func (s *Stack) sub(text string) (any, error) {
	var failed error
	out := variable.ReplaceAllStringFunc(text, func(found string) string {
		name := found[2 : len(found)-1]
		v, err := s.ref(name)
		if err != nil && strings.Contains(name, ".") {
			v, err = s.attribute(name)
		}
		failed = errors.Join(failed, err)
		return fmt.Sprint(v)
	})
	return out, failed
}

func (s *Stack) join(n *yaml.Node) (any, error) {
	if len(n.Content) != 2 {
		return nil, errors.New("!Join: want a separator and a list")
	}
	v, err := s.eval(n.Content[1])
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok {
		return nil, errors.New("!Join: want a list")
	}
	var parts []string
	for _, item := range list {
		parts = append(parts, fmt.Sprint(item))
	}
	return strings.Join(parts, n.Content[0].Value), nil
}

// condition evaluates one by its name.
func (s *Stack) condition(name string) (bool, error) {
	n, ok := s.conditions[name]
	if !ok {
		return false, fmt.Errorf("there is no condition %s", name)
	}
	v, err := s.truth(n)
	return v == true, err
}

// truth evaluates !Not and !Equals.
func (s *Stack) truth(n *yaml.Node) (any, error) {
	switch {
	case n.Tag == "!Not" && len(n.Content) == 1:
		v, err := s.truth(n.Content[0])
		return v != true, err
	case n.Tag == "!Equals" && len(n.Content) == 2:
		a, err := s.eval(n.Content[0])
		if err != nil {
			return nil, err
		}
		b, err := s.eval(n.Content[1])
		return fmt.Sprint(a) == fmt.Sprint(b), err
	}
	return nil, fmt.Errorf("line %d: want !Not or !Equals", n.Line)
}

var dynamic = regexp.MustCompile(`\{\{resolve:secretsmanager:(.+):SecretString:([^:}]+)\}\}`)

// resolve looks dynamic references up.
func (s *Stack) resolve(text string) (any, error) {
	found := dynamic.FindStringSubmatch(text)
	if found == nil {
		return text, nil
	}
	if s.o.Secret == nil {
		return nil, fmt.Errorf("the secret %s is not known here", found[1])
	}
	value, err := s.o.Secret(found[1], found[2])
	if err != nil {
		return nil, fmt.Errorf("secret %s, key %s: %w", found[1], found[2], err)
	}
	return strings.Replace(text, found[0], value, 1), nil
}
