//go:build unix

package readme_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-iot/sluice/internal/listen/listentest"
)

// platformVariable says for which platform a test that has it runs a section, and
// what stands for what the page names: a JSON object of strings.
const platformVariable = "SLUICE_TEST_KUBERNETES"

var (
	dockerCommand     = regexp.MustCompile(`(?m)^(docker|make( build)? images)\b`)
	kubernetesCommand = regexp.MustCompile(`(?m)^kubectl `)
	awsCommand        = regexp.MustCompile(`(?m)^(sam |aws |make (local-aws|aws-package))`)
)

// needPlatform skips the section for want of what containers, clusters and clouds
// are made of.
func needPlatform(t *testing.T, b block) {
	t.Helper()
	if b.lang != "sh" {
		return
	}
	if kubernetesCommand.MatchString(b.code) && os.Getenv(platformVariable) == "" {
		t.Skip("make test-kubernetes has a cluster and runs this there")
	}
	if dockerCommand.MatchString(b.code) {
		if !testAll() {
			t.Skip("containers are started with SLUICE_TEST_ALL=1")
		}
		need(t, "a Docker engine", exec.Command("docker", "version").Run())
	}
	if awsCommand.MatchString(b.code) {
		if !testAll() {
			t.Skip("the local AWS is started with SLUICE_TEST_ALL=1")
		}
		for _, file := range []string{"localstack/bin/python", "aws-lint/bin/sam", "dynamodb-local"} {
			_, err := os.Stat(filepath.Join(repository(), "build", file))
			need(t, "what localstack/deps installs", err)
		}
	}
}

// instead is what stands for names of the page where a platform runs it.
func instead(t *testing.T) *strings.Replacer {
	t.Helper()
	words := map[string]string{}
	if text := os.Getenv(platformVariable); text != "" {
		if err := json.Unmarshal([]byte(text), &words); err != nil {
			t.Fatalf("%s: %v", platformVariable, err)
		}
	}
	var pairs []string
	for old, new := range words {
		pairs = append(pairs, old, new)
	}
	return strings.NewReplacer(pairs...)
}

// furnish gives the page what describes platforms, and what was installed into the
// folder build. The former is copied: it names files beside itself, and a link
// would lead elsewhere.
func (r *reader) furnish(t *testing.T, made string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(r.dir, "infra"), os.DirFS(filepath.Join(made, "infra"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(r.dir, "build"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localstack", "aws-lint", "dynamodb-local"} {
		from := filepath.Join(repository(), "build", name)
		if _, err := os.Stat(from); err == nil {
			r.link(t, from, filepath.Join("build", name))
		}
	}
}

// platformEnvironment is what a command of a platform gets besides.
func (r *reader) platformEnvironment(code string) []string {
	var env []string
	if dockerCommand.MatchString(code) {
		// Images are labelled with the version of the repository, so that what is built
		// again is the same.
		root := repository()
		env = append(env, "GIT_DIR="+filepath.Join(root, ".git"), "GIT_WORK_TREE="+root)
	}
	if awsCommand.MatchString(code) {
		if !strings.Contains(code, "make ") { // which has its cache there
			env = append(env, "HOME="+r.dir)
		}
		// The SAM CLI and the AWS command line are in folders of their own.
		tools := filepath.Join(repository(), "build", "aws-lint", "bin") + ":" + filepath.Join(repository(), "build", "localstack", "bin")
		if r.cloud != "" {
			env = append(env, "AWS_ENDPOINT_URL="+r.cloud, "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local")
		}
		env = append(env, "PATH="+tools+":"+os.Getenv("PATH"),
			"SAM_CLI_TELEMETRY=0", "AWS_EC2_METADATA_DISABLED=true", "AWS_DEFAULT_REGION=eu-central-1",
			"LOCAL_AWS="+r.moved("-device 127.0.0.1:8080 -northbound 127.0.0.1:15672 -management 127.0.0.1:28080 -invoke 127.0.0.1:9001"))
	}
	return env
}

// localstack starts what stands for AWS, for as long as the test goes on, where a
// section speaks to it itself.
func (r *reader) localstack(ctx context.Context, t *testing.T, s section) {
	t.Helper()
	if !slices.ContainsFunc(s.blocks, func(b block) bool {
		return b.lang == "sh" && regexp.MustCompile(`(?m)^(sam deploy|aws) `).MatchString(b.code)
	}) {
		return
	}
	port, err := listentest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	address, dir := net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), t.TempDir()
	python := filepath.Join(repository(), "build", "localstack", "bin", "python")
	p := start(t, dir, "exec "+python+" -m localstack.runtime.main", append(environment(dir), "HOME="+dir, "FILESYSTEM_ROOT="+filepath.Join(dir, "root"),
		"GATEWAY_LISTEN="+address, "LOCALSTACK_HOST="+address, "SERVICES=s3,cloudformation,iam,secretsmanager,sts", "DISABLE_EVENTS=1", "SKIP_SSL_CERT_DOWNLOAD=1",
		"AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local"))
	r.cloud = "http://" + address
	await(ctx, t, "LocalStack", func() bool {
		if p.ended() {
			t.Fatalf("LocalStack ended: %v\n%s", p.cmd.ProcessState, p.output.String())
		}
		resp, err := http.Get(r.cloud + "/_localstack/health")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// removal is the last block of a section that leaves something in an engine or a
// cluster: the page says there how it is removed.
var removal = regexp.MustCompile(`^(docker rm|kubectl delete namespace) `)

// remove does what the page does last, after the programs that stay have ended,
// and also when the test did not come so far.
func (r *reader) remove(t *testing.T, s section) {
	t.Helper()
	if len(s.blocks) == 0 {
		return
	}
	b := s.blocks[len(s.blocks)-1]
	if b.lang != "sh" || !removal.MatchString(b.code) || t.Skipped() {
		return
	}
	script := r.moved(b.code)
	if !t.Failed() { // otherwise not everything may be there
		script = "set -e\n" + script
	}
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir, cmd.Env = r.dir, r.environment(b.code)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("line %d: %v\n%s", b.line, err, out)
	}
}
