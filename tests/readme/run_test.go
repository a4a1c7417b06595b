//go:build unix

package readme_test

import (
	"context"
	"fmt"
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

// ports are what the pages name and other programs may hold already.
var ports = []string{"15672", "15671", "8080", "8443", "1883", "8883", "28080", "28443", "8088", "8089", "8090", "5672", "25672", "5673", "8444", "8445", "8180", "5432", "8000", "9001"}

// reader follows one page.
type reader struct {
	dir   string
	free  map[string]string // free port instead of a named one
	stays []*process        // what runs
	last  *process          // what the last sh block started
	admin *strings.Replacer // of a database, instead of the one that the page names
	words *strings.Replacer // what a platform has instead of other names of the page
	cloud string            // URL of what stands for AWS
}

// TestPages runs every page.
func TestPages(t *testing.T) {
	for _, p := range pages(t) {
		t.Run(strings.TrimSuffix(filepath.Base(p.name), ".md"), func(t *testing.T) { follow(t, &p) })
	}
}

func follow(t *testing.T, p *page) {
	r := &reader{dir: t.TempDir(), free: freePorts(t), admin: strings.NewReplacer(), words: instead(t)}
	made := sourceCopy(t)
	if p.name == "README.md" {
		r.dir = made
	} else {
		// Programs in Go are built, and find what they import, as they would be in
		// the repository.
		for _, name := range []string{"bin", "go.mod", "go.sum", "Makefile", "adapters", "cmd", "events", "functions", "internal", "localstack", "router"} {
			r.link(t, filepath.Join(made, name), name)
		}
		r.furnish(t, made)
	}
	for _, s := range p.sections {
		if s.title == "" {
			// It runs beside all sections, so it is no subtest of its own.
			r.section(t, s)
			continue
		}
		t.Run(s.title, func(t *testing.T) {
			kept := len(r.stays)
			defer func() { r.stays = r.stays[:kept] }() // a section that failed ends what it started itself
			defer r.remove(t, s)
			r.section(t, s)
			r.stop(t, kept)
		})
	}
	r.stop(t, 0)
}

func (r *reader) link(t *testing.T, from, name string) {
	t.Helper()
	if err := os.Symlink(from, filepath.Join(r.dir, name)); err != nil {
		t.Fatal(err)
	}
}

func (r *reader) section(t *testing.T, s section) {
	t.Helper()
	ctx := deadline(t)
	for _, b := range s.blocks {
		needs(t, b)
	}
	for _, b := range s.blocks {
		r.databases(t, b)
	}
	r.keycloak(t, s)
	r.localstack(ctx, t, s)
	for _, b := range s.blocks {
		if b.lang == "sh" && removal.MatchString(b.code) {
			continue // comes last
		}
		t.Logf("line %d", b.line)
		switch b.lang {
		case "sh":
			r.run(ctx, t, b)
		case "text":
			r.compare(ctx, t, b)
		default:
			r.save(t, strings.TrimPrefix(b.mode, "file="), b.code)
		}
	}
}

// needs skips the section for want of what a block runs.
func needs(t *testing.T, b block) {
	t.Helper()
	if b.lang != "sh" && b.lang != "text" {
		return
	}
	python, node := strings.Contains(b.code, "/usr/bin/python3"), regexp.MustCompile(`(?m)^(npm|node) `).MatchString(b.code)
	if usesKeycloak(b) {
		needKeycloak(t)
	}
	needPlatform(t, b)
	if (python || node) && !testAll() {
		t.Skip("programs in Python and JavaScript run with SLUICE_TEST_ALL=1")
	}
	if python {
		need(t, "Proton for Python", exec.Command("/usr/bin/python3", "-c", "import proton").Run())
	}
	if node {
		_, err := exec.LookPath("npm")
		need(t, "Node with npm", err)
	}
	for _, tool := range []string{"curl", "sqlite3", "mosquitto_pub", "mosquitto_sub", "openssl"} {
		if regexp.MustCompile(`(?m)(^|\s|[|(])` + tool + ` `).MatchString(b.code) {
			_, err := exec.LookPath(tool)
			need(t, tool, err)
		}
	}
}

func (r *reader) save(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(r.moved(text)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *reader) run(ctx context.Context, t *testing.T, b block) {
	t.Helper()
	if b.mode == "stays" {
		r.stay(ctx, t, b.code)
		return
	}
	r.last = start(t, r.dir, r.moved(b.code), r.environment(b.code))
	if code := r.last.wait(ctx, t); (code == 0) != (b.mode == "") {
		t.Fatalf("exit code %d of\n%s%s", code, r.last.script, r.last.output.String())
	}
}

// stay starts what goes on while the page goes on, and waits until it has
// printed something: every program of the pages does when it is ready.
func (r *reader) stay(ctx context.Context, t *testing.T, code string) {
	t.Helper()
	lines := strings.SplitAfter(strings.TrimRight(code, "\n"), "\n")
	at := len(lines) - 1
	for at > 0 && strings.HasSuffix(lines[at-1], "\\\n") {
		at--
	}
	lines[at] = "exec " + lines[at]
	p := start(t, r.dir, r.moved(strings.Join(lines, "")), r.environment(code))
	r.last, r.stays = p, append(r.stays, p)
	await(ctx, t, "the first output of "+p.script, func() bool {
		if p.ended() {
			t.Fatalf("%s\nended: %v\n%s", p.script, p.cmd.ProcessState, p.output.String())
		}
		return p.output.String() != ""
	})
}

// stop interrupts what was started last, down to a number.
func (r *reader) stop(t *testing.T, down int) {
	t.Helper()
	ctx := deadline(t)
	for len(r.stays) > down {
		p := r.stays[len(r.stays)-1]
		r.stays = r.stays[:len(r.stays)-1]
		p.interrupt(ctx, t)
	}
}

// compare looks for a text block in what was printed.
func (r *reader) compare(ctx context.Context, t *testing.T, b block) {
	t.Helper()
	among := []*process{r.last}
	if b.mode == "elsewhere" {
		among = r.stays
	}
	var found []string
	await(ctx, t, fmt.Sprintf("line %d: output like\n%s", b.line, b.code), func() bool {
		over := true
		for _, p := range among {
			// First whether it has ended: what it printed is complete then.
			over = p.ended() && over
			var ok bool
			if found, ok = r.printed(p, b.code); ok {
				return true
			}
		}
		if over {
			t.Fatalf("line %d: got\n%s\nwant\n%s", b.line, r.last.output.String(), b.code)
		}
		return false
	})
	for _, line := range found {
		switch {
		case strings.HasPrefix(line, "bin/sluice "):
			r.stay(ctx, t, line)
		case strings.HasPrefix(line, "curl "):
			r.run(ctx, t, block{lang: "sh", code: line})
		}
	}
}

// printed returns the lines of a process that begin as the wanted ones do.
func (r *reader) printed(p *process, want string) ([]string, bool) {
	have := strings.Split(p.output.String(), "\n")
	have = have[:len(have)-1+btoi(p.ended())] // only whole lines of one that runs
	var found []string
	for line := range strings.Lines(want) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		// A default of the program stays what it is; an address of this page was moved.
		like := regexp.MustCompile("^(" + pattern(line) + "|" + pattern(r.moved(line)) + ")")
		i := slices.IndexFunc(have, func(s string) bool { return like.MatchString(strings.TrimSpace(s)) })
		if i < 0 {
			return nil, false
		}
		found = append(found, strings.TrimSpace(have[i]))
		have = have[i+1:]
	}
	return found, true
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func pattern(line string) string {
	return strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, ".*")
}

// freePorts picks a free port for every one that the pages name.
func freePorts(t *testing.T) map[string]string {
	t.Helper()
	free := map[string]string{}
	for _, p := range ports {
		port, err := listentest.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		free[p] = strconv.Itoa(port)
	}
	return free
}

var portWords = regexp.MustCompile(`\b(` + strings.Join(ports, "|") + `)\b`)

// moved is a text with free ports in it.
func (r *reader) moved(text string) string {
	return portWords.ReplaceAllStringFunc(r.words.Replace(r.admin.Replace(text)), func(p string) string { return r.free[p] })
}

// environment moves the default ports of what names none.
func (r *reader) environment(code string) []string {
	env := append(environment(r.dir), r.platformEnvironment(code)...)
	if regexp.MustCompile(`sluice up|make run`).MatchString(code) && !strings.Contains(code, "--config") {
		env = append(env, "SLUICE_LISTENERS="+r.moved(`[{role: northbound, address: "127.0.0.1:15672"},
			{role: northbound, address: "127.0.0.1:15671", tls: {}}, {role: adapter/http, address: "127.0.0.1:8080"},
			{role: adapter/http, address: "127.0.0.1:8443", tls: {}},
			{role: adapter/mqtt, address: "127.0.0.1:1883"}, {role: adapter/mqtt, address: "127.0.0.1:8883", tls: {}},
			{role: management, address: "127.0.0.1:28080"},
			{role: management, address: "127.0.0.1:28443", tls: {}}, {role: health, address: "127.0.0.1:8088"}]`))
	}
	if strings.Contains(code, "sluice consume") && !strings.Contains(code, "--url") {
		env = append(env, "SLUICE_URL=amqp://127.0.0.1:"+r.free["15672"])
	}
	return env
}

// environment is that of a person who has set nothing of ours, and whose data
// folder, where none is named, is in dir.
func environment(dir string) []string {
	var env []string
	for _, e := range os.Environ() {
		// make passes its own flags to what it starts, and a test may be that.
		name, _, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "SLUICE_") && !strings.HasPrefix(name, "MAKE") && name != "MFLAGS" && name != "VERSION" {
			env = append(env, e)
		}
	}
	return append(env, "XDG_DATA_HOME="+filepath.Join(dir, "xdg"), "npm_config_prefer_offline=true", "npm_config_update_notifier=false")
}
