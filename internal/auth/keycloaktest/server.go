package keycloaktest

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/listen/listentest"
)

// The administrator of a server's realm master.
const (
	adminName     = "admin"
	adminPassword = "admin of the test"
)

// Server is a Keycloak.
type Server struct {
	URL string // http://127.0.0.1:PORT

	java, jar, home string
	port            int
	running         *process // nil = stopped
}

var errMissing = errors.New("there is no Keycloak here (make deps installs it)")

// Start starts a server, which ends with the test. Because that takes long, the
// test is skipped unless SLUICE_TEST_ALL=1; then it fails where there is no Keycloak.
func Start(t testing.TB) *Server {
	t.Helper()
	if os.Getenv("SLUICE_TEST_ALL") != "1" {
		t.Skip("Keycloak is started with SLUICE_TEST_ALL=1 only")
	}
	dist, err := distribution()
	java, noJava := exec.LookPath("java")
	if err == nil && noJava != nil {
		err = fmt.Errorf("%w: %w", errMissing, noJava)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{java: java, jar: filepath.Join(dist, "lib", "quarkus-run.jar"), home: t.TempDir()}
	// Only the folder data is written to.
	for _, name := range []string{"conf", "lib", "providers", "themes"} {
		if err := os.Symlink(filepath.Join(dist, name), filepath.Join(s.home, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if s.running != nil {
			s.running.kill()
			if t.Failed() {
				t.Logf("Keycloak printed:\n%.10000s", s.running.output.String())
			}
		}
	})
	// A port that is free now may be taken a moment later.
	for range 3 {
		if s.port, err = listentest.FreePort(); err != nil {
			break
		}
		s.URL = fmt.Sprintf("http://127.0.0.1:%d", s.port)
		if err = s.launch(); err == nil {
			return s
		}
	}
	t.Fatal(err)
	return nil
}

// Stop ends the server in order; what it knows is kept.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.running.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-s.running.done
	s.running = nil
}

// Restart starts a server that was stopped, at the same address.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.launch(); err != nil {
		t.Fatal(err)
	}
}

// distribution finds build/keycloak of the module that is tested.
func distribution() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the tests")
		}
		dir = parent
	}
	dist := filepath.Join(dir, "build", "keycloak")
	if _, err := os.Stat(filepath.Join(dist, "pom.xml")); err != nil {
		return "", fmt.Errorf("%w: no folder build/keycloak", errMissing)
	}
	return dist, err
}

// process is a running server.
type process struct {
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has ended
	output bytes.Buffer  // read after done
}

func (p *process) kill() {
	p.cmd.Process.Kill() // there is no other in its group
	<-p.done
}

// launch runs Java as bin/kc.sh does, with a home of the test's.
func (s *Server) launch() error {
	p := &process{done: make(chan struct{})}
	p.cmd = exec.Command(s.java, "-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dkc.home.dir="+s.home, "-Djboss.server.config.dir="+filepath.Join(s.home, "conf"),
		"-Djava.util.logging.manager=org.jboss.logmanager.LogManager", "-Dpicocli.disable.closures=true",
		"-Djgroups.bind.address=127.0.0.1", "-Djava.io.tmpdir="+s.home,
		"--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
		"--add-opens=java.base/java.security=ALL-UNNAMED",
		"-cp", s.jar, "io.quarkus.bootstrap.runner.QuarkusEntryPoint", "start", "--optimized", "--cache=local",
		"--http-enabled=true", "--http-host=127.0.0.1", fmt.Sprintf("--http-port=%d", s.port), "--hostname="+s.URL)
	p.cmd.Env = append(os.Environ(), "KC_BOOTSTRAP_ADMIN_USERNAME="+adminName, "KC_BOOTSTRAP_ADMIN_PASSWORD="+adminPassword)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = attributes()
	started := make(chan error)
	go p.own(started)
	if err := <-started; err != nil {
		return err
	}
	s.running = p
	return p.await(s.Issuer("master"))
}

// own starts the process and waits for it, on one thread: the kernel's signal
// comes when the thread that started the process ends.
func (p *process) own(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err == nil {
		p.cmd.Wait() // ended by the test, or by itself: await sees that
		close(p.done)
	}
}

// await waits until the server answers.
func (p *process) await(url string) error {
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	for {
		resp, err := client.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-p.done:
			return fmt.Errorf("the server ended: %.2000s", p.output.String())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
