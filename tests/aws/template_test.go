package aws_test

import (
	"os"
	"path/filepath"
	"reflect"
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
	for _, name := range []string{"Table", "EventsTable", "Notices", "DeadLetters", "Logs", "Role", "EventsRole", "ManagementRole", "Identity", "Identity.Version", "Identity.Alias", "Events", "Events.Version", "Events.Alias", "ManagementApi", "Rotation", "Expiry"} {
		s.Made(name, template.Resource{Ref: "ref:" + name, Attributes: map[string]string{"Arn": "arn:" + name, "QueueName": name, "Version": "1"}})
	}
	return s
}

// needed is what the documentation of a store says that it may do with its table.
func needed(t *testing.T, path ...string) []string {
	t.Helper()
	text := strings.Join(strings.Fields(strings.ReplaceAll(readFile(t, path...), "//", "")), " ")
	_, text, ok := strings.Cut(text, "The program needs dynamodb:")
	text, _, ok2 := strings.Cut(text, " on the table")
	if !ok || !ok2 {
		t.Fatalf("%v does not say what the store needs", path)
	}
	want := strings.FieldsFunc(strings.ReplaceAll(text, " and ", ","), func(r rune) bool { return r == ',' || r == ' ' })
	slices.Sort(want)
	return want
}

// statement is one of a policy.
type statement struct {
	Sid      string
	Action   []string
	Resource string
}

// statements are those of a policy.
func statements(t *testing.T, document any) (all []statement) {
	t.Helper()
	for _, item := range document.(map[string]any)["Statement"].([]any) {
		m := item.(map[string]any)
		st := statement{Resource: m["Resource"].(string)}
		st.Sid, _ = m["Sid"].(string)
		switch actions := m["Action"].(type) {
		case string:
			st.Action = []string{actions}
		case []any:
			for _, a := range actions {
				st.Action = append(st.Action, a.(string))
			}
		}
		slices.Sort(st.Action)
		all = append(all, st)
	}
	return all
}

// TestTheRolesMayWhatTheStoresNeed and nothing else there, each on its own tables alone.
func TestTheRolesMayWhatTheStoresNeed(t *testing.T) {
	stores := map[string][]string{
		"arn:Table":       needed(t, "internal", "registry", "dynamostore", "doc.go"),
		"arn:EventsTable": needed(t, "internal", "eventstore", "dynamostore", "doc.go"),
	}
	others := map[string][]string{
		"arn:Logs":        {"logs:CreateLogStream", "logs:PutLogEvents"},
		"arn:Notices":     {"sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage"},
		"arn:DeadLetters": {"sqs:SendMessage"},
	}
	for role, resources := range map[string][]string{
		"Role":           {"arn:DeadLetters", "arn:Logs", "arn:Notices", "arn:Table"},
		"EventsRole":     {"arn:DeadLetters", "arn:EventsTable", "arn:Logs"},
		"ManagementRole": {"arn:EventsTable", "arn:Logs", "arn:Notices", "arn:Table"},
	} {
		p, err := made(t, nil).Properties(role)
		if err != nil {
			t.Fatal(err)
		}
		policies := p["Policies"].([]any)
		if len(policies) != 1 {
			t.Errorf("%s: %d policies, want one where there are no subnets", role, len(policies))
		}
		var got []string
		for _, st := range statements(t, policies[0].(map[string]any)["PolicyDocument"]) {
			got = append(got, st.Resource)
			want, ok := others[st.Resource]
			if store, isStore := stores[st.Resource]; isStore {
				ok, want = true, nil
				for _, action := range store {
					want = append(want, "dynamodb:"+action)
				}
			}
			if role == "ManagementRole" && st.Resource == "arn:Notices" {
				want = []string{"sqs:SendMessage"}
			}
			if !ok || !slices.Equal(st.Action, want) {
				t.Errorf("%s may %v on %s, want %v", role, st.Action, st.Resource, want)
			}
		}
		if slices.Sort(got); !slices.Equal(got, resources) {
			t.Errorf("%s may something with %v, want %v", role, got, resources)
		}
	}
}

// TestWhoMayInvoke has a policy for each function that others call, for one alias each.
func TestWhoMayInvoke(t *testing.T) {
	for policy, alias := range map[string]string{"CallerPolicy": "ref:Identity.Alias", "EventsCallerPolicy": "ref:Events.Alias"} {
		p, err := made(t, nil).Properties(policy)
		if err != nil {
			t.Fatal(err)
		}
		all := statements(t, p["PolicyDocument"])
		if len(all) != 1 || all[0].Resource != alias || !slices.Equal(all[0].Action, []string{"lambda:InvokeFunction"}) {
			t.Errorf("%s permits %+v, want to invoke %s", policy, all, alias)
		}
	}
}

// TestTheTablesAreKept and expire by what their stores write.
func TestTheTablesAreKept(t *testing.T) {
	for table, expires := range map[string]string{"Table": "expires", "EventsTable": "ttl"} {
		p, err := made(t, nil).Properties(table)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"BillingMode": "PAY_PER_REQUEST", "DeletionProtectionEnabled": "true", "SSESpecification": map[string]any{"SSEEnabled": "true"},
			"PointInTimeRecoverySpecification": map[string]any{"PointInTimeRecoveryEnabled": "true"},
			"TimeToLiveSpecification":          map[string]any{"AttributeName": expires, "Enabled": "true"},
		}
		for name, v := range want {
			if !reflect.DeepEqual(p[name], v) {
				t.Errorf("%s: %s is %v, want %v", table, name, p[name], v)
			}
		}
	}
}

func TestWhatTheFunctionsAreTold(t *testing.T) {
	whole := map[string]string{"RouterIngresses": "https://a:8445, https://b:8445", "Management": "true", "Secrets": "prod", "ReplacingKek": "true"}
	for _, tt := range []struct {
		function   string
		parameters map[string]string
		want       map[string]any
	}{
		{"Identity", nil, map[string]any{
			"SLUICE_REGISTRY_TABLE": "ref:Table", "SLUICE_EVENTS_TABLE": nil, "SLUICE_KEK": "sluice/kek", "SLUICE_LAMBDA_ACCEPT": "direct:live,sqs:notices,schedule:cron",
			"SLUICE_NOTICES_BROKER": nil, "SLUICE_TLS_KEY_PEM": nil, "SLUICE_IDENTITIES": nil, "SLUICE_KEK_PREVIOUS": nil,
			"SLUICE_SERVE": "tenant,credentials,registration,assertion,admission,notification"}},
		{"Identity", whole, map[string]any{
			"SLUICE_NOTICES_BROKER": "sqs:ref:Notices", "SLUICE_NOTICES_INGRESSES": "[https://a:8445, https://b:8445]", "SLUICE_TLS_KEY_PEM": "prod/tls-key",
			"SLUICE_IDENTITIES": nil, "SLUICE_KEK_PREVIOUS": "prod/kek-previous"}},
		{"Events", whole, map[string]any{
			"SLUICE_SERVE": "events", "SLUICE_EVENTS_STORE": "dynamodb", "SLUICE_EVENTS_TABLE": "ref:EventsTable", "SLUICE_REGISTRY_TABLE": nil,
			"SLUICE_KEK": nil, "SLUICE_VERIFIED_KEY": nil, "SLUICE_TLS_KEY_PEM": nil,
			"SLUICE_LAMBDA_ACCEPT": "direct:live,schedule:cron", "SLUICE_LAMBDA_DIRECT": "router"}},
		{"ManagementApi", whole, map[string]any{
			"SLUICE_SERVE": "assertion,events,management", "SLUICE_LAMBDA_ACCEPT": "http:url", "SLUICE_IDENTITIES": "/var/task/identities.yaml",
			"SLUICE_REGISTRY_TABLE": "ref:Table", "SLUICE_EVENTS_TABLE": "ref:EventsTable", "SLUICE_KEK": "prod/kek", "SLUICE_NOTICES_BROKER": "sqs:ref:Notices"}},
	} {
		p, err := made(t, tt.parameters).Properties(tt.function)
		if err != nil {
			t.Fatal(err)
		}
		got := p["Environment"].(map[string]any)["Variables"].(map[string]any)
		for name, want := range tt.want {
			if got[name] != want {
				t.Errorf("%s: %s is %v, want %v", tt.function, name, got[name], want)
			}
		}
	}
	if ok, err := made(t, nil).Has("ManagementApi"); ok || err != nil {
		t.Errorf("the management API is there unless it is wanted: %t, %v", ok, err)
	}
	for name, value := range map[string]string{"RouterIngresses": "http://a", "Management": "yes", "ReservedConcurrency": "0", "EventsTimeout": "901", "EventsMaxTtl": "1 d", "Secrets": "a b", "NoSuch": "1"} {
		if _, err := template.Open(repository(t, "infra", "aws", "template.yaml"), template.Options{Parameters: map[string]string{name: value}}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}
