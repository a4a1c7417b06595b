package template_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/localstack/template"
)

const text = `
Parameters:
  Text: {Type: String, Default: ""}
  List: {Type: CommaDelimitedList, Default: "a, b"}
  Number: {Type: Number, Default: 3, MinValue: 1, MaxValue: 5}
  Needed: {Type: String, AllowedValues: [x, y]}
Conditions:
  HasText: !Not [!Equals [!Ref Text, ""]]
Resources:
  A:
    Type: T
    Properties:
      Name: !Sub "${AWS::StackName}-${Needed}"
      Where: !Join [":", [!Ref AWS::Region, !Ref AWS::AccountId]]
      Maybe: !If [HasText, !Ref Text, !Ref AWS::NoValue]
      Items: [one, !If [HasText, two, !Ref AWS::NoValue]]
      List: !Ref List
      Number: !Ref Number
      Other: !GetAtt B.Arn
      Both: !Sub "${B}/${B.Arn}"
      Secret: "{{resolve:secretsmanager:s:SecretString:k}}"
  B: {Type: T, Condition: HasText, Properties: {Self: !Ref B}}
  Odd: {Type: O, Properties: {X: !Select [0, [1]]}}
Outputs:
  Out: {Value: !Ref Needed}
`

func open(t *testing.T, parameters map[string]string) (*template.Stack, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "template.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return template.Open(file, template.Options{Stack: "s", Region: "r", Account: "1", Parameters: parameters, Secret: func(secret, key string) (string, error) {
		if secret != "s" || key != "k" {
			return "", errors.New("no such key")
		}
		return "hidden", nil
	}})
}

func TestProperties(t *testing.T) {
	for given, want := range map[string]map[string]any{
		"":  {"Items": []any{"one"}},
		"t": {"Items": []any{"one", "two"}, "Maybe": "t"},
	} {
		s, err := open(t, map[string]string{"Text": given, "Needed": "x"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Properties("A"); err == nil || !strings.Contains(err.Error(), "B.Arn: no parameter") {
			t.Errorf("before B is made: %v", err)
		}
		s.Made("B", template.Resource{Ref: "b", Attributes: map[string]string{"Arn": "arn:b"}})
		got, err := s.Properties("A")
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range map[string]any{"Name": "s-x", "Where": "r:1", "List": []any{"a", "b"}, "Number": "3", "Other": "arn:b", "Both": "b/arn:b", "Secret": "hidden"} {
			want[name] = v
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		names, err := s.Names("T")
		if wantNames := map[string][]string{"": {"A"}, "t": {"A", "B"}}[given]; err != nil || !reflect.DeepEqual(names, wantNames) {
			t.Errorf("resources %v, %v", names, err)
		}
		if out, err := s.Output("Out"); err != nil || out != "x" {
			t.Errorf("output %s, %v", out, err)
		}
		for _, name := range []string{"Odd", "None"} {
			if _, err := s.Properties(name); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestParametersAreChecked(t *testing.T) {
	for want, parameters := range map[string]map[string]string{
		"Needed: has no default": {},
		"expected one of [x y]":  {"Needed": "z"},
		"within its limits":      {"Needed": "x", "Number": "6"},
		"no parameter Nothing":   {"Needed": "x", "Nothing": "1"},
	} {
		if _, err := open(t, parameters); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", parameters, err, want)
		}
	}
	if _, err := template.Open(filepath.Join(t.TempDir(), "none"), template.Options{}); err == nil {
		t.Error("a file that is not there")
	}
}
