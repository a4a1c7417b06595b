package aws_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/localstack/template"
)

// region is for tools that want one and ask nobody there.
var region = []string{"AWS_DEFAULT_REGION=eu-central-1", "AWS_REGION=eu-central-1", "SAM_CLI_TELEMETRY=0", "AWS_EC2_METADATA_DISABLED=true"}

func TestTemplateIsValid(t *testing.T) {
	lint, sam := needs(t, "localstack/deps", "build", "aws-lint", "bin", "cfn-lint"), needs(t, "localstack/deps", "build", "aws-lint", "bin", "sam")
	env := append(region, "HOME="+t.TempDir(), "PATH="+filepath.Dir(sam)+":"+os.Getenv("PATH"))
	good := repository(t, "infra", "aws", "template.yaml")
	if out, err := command(t, env, lint, "--regions", "eu-central-1", "--", good); err != nil {
		t.Errorf("cfn-lint: %v\n%s", err, out)
	}
	if out, err := command(t, env, sam, "validate", "--lint", "-t", good); err != nil {
		t.Errorf("sam validate: %v\n%s", err, out)
	}
	text := readFile(t, "infra", "aws", "template.yaml")
	for right, wrong := range map[string]string{
		"MemorySize: !Ref": "MemorySise: !Ref", "BillingMode: PAY": "BillingMoed: PAY", "maxReceiveCount: !Ref": "maxReceivedCount: !Ref", "!GetAtt Table.Arn": "!GetAtt Tabel.Arn",
	} {
		if !strings.Contains(text, right) {
			t.Fatalf("the template has no %s any more", right)
		}
		bad := filepath.Join(t.TempDir(), "template.yaml")
		if err := os.WriteFile(bad, []byte(strings.Replace(text, right, wrong, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := command(t, env, lint, "--regions", "eu-central-1", "--", bad)
		word := strings.Trim(strings.Fields(strings.NewReplacer("!GetAtt ", "", ".Arn", "").Replace(wrong))[0], ":")
		if err == nil || !strings.Contains(out, word) {
			t.Errorf("cfn-lint does not name %s: %v\n%s", word, err, out)
		}
	}
}

// made tells the template of what the properties of others name.
func made(t *testing.T, parameters map[string]string) *template.Stack {
	t.Helper()
	s, err := template.Open(repository(t, "infra", "aws", "template.yaml"), template.Options{
		Stack: "s", Region: "eu-central-1", Account: "1", Parameters: parameters,
		Secret: func(secret, key string) (string, error) { return secret + "/" + key, nil }})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Table", "Notices", "DeadLetters", "Logs", "Role", "Identity", "Identity.Version", "Identity.Alias", "Rotation"} {
		s.Made(name, template.Resource{Ref: "ref:" + name, Attributes: map[string]string{"Arn": "arn:" + name, "QueueName": name, "Version": "1"}})
	}
	return s
}

// TestTheRoleMayWhatTheStoreNeeds and nothing else there.
func TestTheRoleMayWhatTheStoreNeeds(t *testing.T) {
	text := strings.Join(strings.Fields(strings.ReplaceAll(readFile(t, "internal", "registry", "dynamostore", "doc.go"), "//", "")), " ")
	_, text, ok := strings.Cut(text, "The program needs dynamodb:")
	text, _, ok2 := strings.Cut(text, " on the table")
	if !ok || !ok2 {
		t.Fatal("the store does not say what it needs")
	}
	want := strings.FieldsFunc(strings.ReplaceAll(text, " and ", ","), func(r rune) bool { return r == ',' || r == ' ' })
	p, err := made(t, nil).Properties("Role")
	if err != nil {
		t.Fatal(err)
	}
	policies := p["Policies"].([]any)
	if len(policies) != 1 {
		t.Errorf("%d policies, want one where there are no subnets", len(policies))
	}
	for _, item := range policies[0].(map[string]any)["PolicyDocument"].(map[string]any)["Statement"].([]any) {
		statement := item.(map[string]any)
		if resource := statement["Resource"].(string); strings.Contains(resource, "*") {
			t.Errorf("%v may %v on %s", statement["Sid"], statement["Action"], resource)
		}
		if statement["Sid"] != "Registry" {
			continue
		}
		var got []string
		for _, action := range statement["Action"].([]any) {
			got = append(got, strings.TrimPrefix(action.(string), "dynamodb:"))
		}
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) || statement["Resource"] != "arn:Table" {
			t.Errorf("may %v on %v, the store needs %v", got, statement["Resource"], want)
		}
	}
}

func TestWhatTheFunctionIsTold(t *testing.T) {
	variables := func(parameters map[string]string) map[string]any {
		p, err := made(t, parameters).Properties("Identity")
		if err != nil {
			t.Fatal(err)
		}
		return p["Environment"].(map[string]any)["Variables"].(map[string]any)
	}
	alone := variables(nil)
	for name, want := range map[string]any{
		"SLUICE_REGISTRY_TABLE": "ref:Table", "SLUICE_KEK": "sluice/kek", "SLUICE_LAMBDA_ACCEPT": "direct:live,http:url,sqs:notices,schedule:cron",
		"SLUICE_NOTICES_BROKER": nil, "SLUICE_TLS_KEY_PEM": nil, "SLUICE_IDENTITIES": nil, "SLUICE_KEK_PREVIOUS": nil,
		"SLUICE_SERVE": "tenant,credentials,registration,assertion,admission",
	} {
		if alone[name] != want {
			t.Errorf("%s is %v, want %v", name, alone[name], want)
		}
	}
	whole := variables(map[string]string{"RouterIngresses": "https://a:8445, https://b:8445", "Management": "true", "Secrets": "prod", "ReplacingKek": "true"})
	for name, want := range map[string]any{
		"SLUICE_NOTICES_BROKER": "sqs:ref:Notices", "SLUICE_NOTICES_INGRESSES": "[https://a:8445, https://b:8445]", "SLUICE_TLS_KEY_PEM": "prod/tls-key",
		"SLUICE_IDENTITIES": "/var/task/identities.yaml", "SLUICE_KEK_PREVIOUS": "prod/kek-previous",
	} {
		if whole[name] != want {
			t.Errorf("%s is %v, want %v", name, whole[name], want)
		}
	}
	for name, value := range map[string]string{"RouterIngresses": "http://a", "Management": "yes", "ReservedConcurrency": "0", "Secrets": "a b", "NoSuch": "1"} {
		if _, err := template.Open(repository(t, "infra", "aws", "template.yaml"), template.Options{Parameters: map[string]string{name: value}}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}
