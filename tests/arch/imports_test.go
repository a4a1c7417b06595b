package arch_test

import (
	"slices"
	"strings"
	"testing"
)

type importRow struct {
	packages string
	imports  []string
	reason   string
}

// mayImport says which packages of this module a package imports directly. Each
// package of the module is named by exactly one row (the first that matches),
// so a new package without a row fails.
var mayImport = []importRow{
	{"cmd/...", []string{"..."}, "the program is where everything meets"},
	{"tests/bench", []string{"router", "internal/iot", "internal/assertion", "internal/amqp", "internal/auth"}, "the benchmark starts a router that trusts its key"},
	{"tests/interop/wire", []string{"internal/amqp"}, "the raw client writes frames"},
	{"tests/campaign", []string{"internal/amqp", "internal/amqp/peer"}, "the soak's clients are many"},
	{"tests/aws", []string{"localstack/stack", "localstack/template"}, "the deployment that it tests is started by a package"},
	{"tests/...", nil, "the tools of the tests stand alone"},
	{"infra/...", nil, "what packs a deployment is a tool of the build"},
	{"localstack/...", []string{"localstack/...", "internal/iot", "internal/listen"}, "the deployment on one machine starts the programs as processes"},

	{"internal/iot", nil, "the words of the domain depend on nothing"},
	{"internal/amqp", nil, "the wire format depends on nothing"},
	{"internal/amqp/peer", []string{"internal/amqp"}, "the engine knows the wire format, not tenants or devices"},
	{"internal/status", []string{"internal/iot"}, "one table from sentinel errors to protocols"},
	{"internal/registry", []string{"internal/iot"}, "rules and the port, no backend"},
	{"internal/eventstore", []string{"internal/iot", "internal/status"}, "rules and the port, no backend"},
	{"internal/eventstore/dynamostore", []string{"internal/awsenv", "internal/iot", "internal/eventstore"}, "a backend knows its port and its driver, and who it is on AWS"},
	{"internal/*/*store", []string{"internal/iot", "internal/registry", "internal/eventstore", "internal/assertion"}, "a backend knows its ports and its driver"},
	{"internal/*/*test", []string{"internal/iot", "internal/registry", "internal/eventstore", "internal/listen/listentest"}, "a conformance suite knows its port, a foreign server needs a free one"},
	{"internal/assertion", []string{"internal/iot"}, "tokens carry domain words only"},
	{"internal/attempts", []string{"internal/iot"}, "counting failures knows no protocol"},
	{"internal/auth/oidc", []string{"internal/iot"}, "tokens of others, whoever presents them"},
	{"internal/auth/authtoken", []string{"internal/auth"}, "who verifies these tokens is elsewhere"},
	{"internal/auth", []string{"internal/attempts", "internal/iot", "internal/auth/oidc", "internal/config", "internal/config/strictyaml"}, "identities are a file, independent of who asks"},
	{"internal/config/strictyaml", nil, "reading YAML knows nothing of what is read"},
	{"internal/config", []string{"internal/iot", "internal/config/strictyaml"}, "the file is read before anything runs"},
	{"internal/listen", []string{"internal/iot", "internal/config"}, "sockets and TLS for everyone"},
	{"internal/observe/metrics", []string{"internal/observe"}, "figures beside what everyone needs, so that not everyone links Prometheus"},
	{"internal/observe", []string{"internal/iot"}, "health and metrics for everyone"},

	{"router/forward", []string{"internal/amqp", "internal/amqp/peer"}, "the core forwards deliveries: no tenant, no device, no CloudEvent"},
	{"router/stored", []string{"events", "internal/eventstore", "internal/iot", "internal/amqp", "router/forward"}, "events are kept by a log, and go out through the forwarder"},
	{"router/notices", []string{"events", "events/http", "internal/iot", "internal/status", "internal/amqp", "internal/auth"}, "facts come by HTTP, and what they ask for goes out by ports"},
	{"router/...", []string{"router/...", "internal/iot", "internal/status", "internal/amqp", "internal/amqp/peer", "internal/assertion", "internal/eventstore",
		"internal/auth", "internal/config", "internal/listen", "internal/observe", "events"}, "the router meets adapters on the wire and functions by the Invoker"},
	{"adapters/...", []string{"adapters/...", "internal/attempts", "internal/iot", "internal/status", "internal/amqp", "internal/amqp/peer", "internal/assertion",
		"internal/config", "internal/listen", "internal/observe", "events"}, "adapters meet the router on the wire and functions by the Invoker"},
	{"functions/host/...", []string{"functions/...", "events", "events/http", "internal/iot", "internal/status", "internal/auth", "internal/config",
		"internal/eventstore", "internal/eventstore/storetest", "internal/listen", "internal/observe"}, "a host turns what its platform delivers into calls of the functions"},
	{"functions/realm", []string{"internal/iot", "internal/auth/oidc"}, "passwords that others check, and what their tokens say"},
	{"functions/...", []string{"functions/...", "internal/attempts", "internal/iot", "internal/status", "internal/registry", "internal/eventstore", "internal/assertion",
		"internal/auth", "internal/config", "internal/listen", "internal/observe", "events"}, "functions see the ports of registry and event store, never a backend"},
	{"internal/awsenv", nil, "what AWS gives a process knows nothing of what the process does"},
	{"events/invoke/...", []string{"events", "events/http", "events/invoke", "internal/awsenv", "internal/iot", "internal/status"}, "an invoker knows its transport and nothing else"},
	{"events/post/http/metrics", []string{"events/post/http"}, "figures apart, so that not everyone links Prometheus"},
	{"events/post/...", []string{"events", "events/http", "events/invoke", "internal/awsenv", "internal/iot", "internal/status"}, "a poster knows its transport and nothing else"},
	{"events/...", []string{"events/...", "internal/iot", "internal/status", "internal/eventstore"}, "events are words between our parts"},
}

// never says what a package does not reach, directly or through others. Paths
// outside this module are given whole.
var never = []struct {
	packages string
	reaches  []string
	reason   string
}{
	{"adapters/...", []string{"router/...", "functions/...", "internal/registry/...", "internal/auth/..."}, "they meet in cmd, on the wire, or through events.Invoker"},
	{"router/...", []string{"adapters/...", "functions/...", "internal/registry/..."}, "they meet in cmd, on the wire, or through events.Invoker"},
	{"functions/...", []string{"adapters/...", "router/...", "internal/*/*store", "internal/amqp/..."}, "they meet in cmd, on the wire, or through events.Invoker"},
	{"functions/*", []string{"knative.dev/...", "github.com/aws/..."}, "a function runs anywhere; only its host knows the platform"},
	{"internal/...", []string{"adapters/...", "router/...", "functions/...", "events/..."}, "shared packages sit below the product"},
	{"events", []string{"github.com/Azure/...", "knative.dev/...", "github.com/aws/..."}, "the port brings no transport"},
	{"cmd/sluice-edge", []string{"functions/...", "internal/registry/...", "internal/eventstore/*store", "cmd/internal/identity", "cmd/internal/eventlog", "events/post/inproc", "events/post/sqs", "events/invoke/inproc", "modernc.org/...",
		"github.com/jackc/...", "github.com/aws/aws-sdk-go-v2/service/dynamodb/...", "github.com/aws/aws-lambda-go/...", "github.com/Azure/...", "github.com/spf13/..."},
		"it faces devices: no store and no driver of one, no functions, no management, no commands of the operator"},
	{"cmd/sluice-function", []string{"adapters/...", "router/...", "internal/amqp/...", "events/invoke/http", "events/invoke/lambda", "github.com/spf13/...", "github.com/prometheus/...", "google.golang.org/protobuf/..."}, "it starts in milliseconds wherever nobody waits for it: no edge, no commands, no metrics"},
	{"router/...", []string{"modernc.org/...", "github.com/Azure/...", "knative.dev/..."}, "the edge is small: no database, no foreign AMQP client"},
	{"adapters/...", []string{"modernc.org/...", "github.com/Azure/...", "knative.dev/..."}, "the edge is small: no database, no foreign AMQP client"},
}

// standardOnly names packages that import nothing from outside.
var standardOnly = []string{"internal/iot", "internal/amqp"}

// notDirectly forbids single direct imports.
var notDirectly = []struct {
	packages, imports, reason string
}{
	{"internal/amqp", "reflect", "encoding and decoding go without reflection"},
	{"router/forward", "net", "the core has no sockets"},
	{"router/forward", "os", "the core has no files"},
	{"internal/...", "log", "loggers are passed in, as slog"},
	{"adapters/...", "log", "loggers are passed in, as slog"},
	{"router/...", "log", "loggers are passed in, as slog"},
	{"functions/...", "log", "loggers are passed in, as slog"},
	{"events/...", "log", "loggers are passed in, as slog"},
}

func TestDirectImports(t *testing.T) {
	for _, row := range mayImport {
		matching(t, row.packages)
	}
	for _, p := range ourPackages(t) {
		i := slices.IndexFunc(mayImport, func(row importRow) bool { return match(row.packages, p.rel()) })
		if i < 0 {
			t.Errorf("%s has no row in the table of imports: say what it may import", p.rel())
			continue
		}
		row := mayImport[i]
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module) || slices.Contains(row.imports, "...") {
				continue
			}
			if !matchAny(row.imports, inModule(imp)) {
				t.Errorf("%s imports %s; %s imports only %v: %s", p.rel(), inModule(imp), row.packages, row.imports, row.reason)
			}
		}
	}
}

func TestNeverReaches(t *testing.T) {
	for _, row := range never {
		for _, p := range matching(t, row.packages) {
			for _, dep := range p.Deps {
				if matchAny(row.reaches, inModule(dep)) {
					t.Errorf("%s reaches %s: %s", p.rel(), inModule(dep), row.reason)
				}
			}
		}
	}
}

func TestStandardLibraryOnly(t *testing.T) {
	for _, name := range standardOnly {
		for _, p := range matching(t, name) {
			for _, imp := range p.Imports {
				if first, _, _ := strings.Cut(imp, "/"); strings.Contains(first, ".") {
					t.Errorf("%s imports %s: only the standard library is allowed there", name, imp)
				}
			}
		}
	}
}

func TestForbiddenDirectImports(t *testing.T) {
	for _, row := range notDirectly {
		for _, p := range matching(t, row.packages) {
			if slices.Contains(p.Imports, row.imports) {
				t.Errorf("%s imports %s: %s", p.rel(), row.imports, row.reason)
			}
		}
	}
}

// TestOnlyHostsKnowThePlatform finds who imports a platform's packages at all.
func TestOnlyHostsKnowThePlatform(t *testing.T) {
	platforms := []string{"knative.dev/...", "github.com/aws/..."}
	hosts := []string{"functions/host/*", "events/invoke/lambda", "events/post/sqs", "cmd/...", "localstack/...", "internal/awsenv", "internal/registry/dynamostore", "internal/eventstore/dynamostore"}
	for _, p := range ourPackages(t) {
		for _, imp := range p.Imports {
			if matchAny(platforms, imp) && !matchAny(hosts, p.rel()) {
				t.Errorf("%s imports %s: only %v know a platform", p.rel(), imp, hosts)
			}
		}
	}
}

// TestProductionWithoutTestPackages keeps conformance suites and fakes out of the program.
func TestProductionWithoutTestPackages(t *testing.T) {
	for _, p := range ourPackages(t) {
		if strings.HasSuffix(p.rel(), "test") {
			continue
		}
		for _, imp := range p.Imports {
			if imp == "testing" || strings.HasPrefix(imp, "testing/") || strings.HasPrefix(imp, module) && strings.HasSuffix(imp, "test") {
				t.Errorf("%s imports %s: production code imports no test package", p.rel(), imp)
			}
		}
	}
}
