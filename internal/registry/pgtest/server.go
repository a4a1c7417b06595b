package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-iot/sluice/internal/listen/listentest"
)

// Password is the password of the server's superuser, which is the user in
// [Server.URL].
const Password = "p%40ss/w:rd"

const (
	superuser = "tester"
	database  = "postgres"
)

// Server is one PostgreSQL. Its methods are for one goroutine.
type Server struct {
	URL string // with the user's name and password; the database is empty
	// Dir holds the server's data, its socket and its log.
	Dir string

	programs programs
	reach    Reach
	port     int
	process  *process // nil while it does not run
	killed   bool     // ended by Kill and not started since
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartFor(t, Reach{})
}

// StartFor is Start for a server that is reached from elsewhere, too.
func StartFor(t testing.TB, reach Reach) *Server {
	t.Helper()
	p, err := find()
	need(t, err)
	dir, err := os.MkdirTemp("", "sluice-pg-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Dir: dir, programs: p, reach: reach}
	t.Cleanup(func() {
		if err := s.end(); err != nil {
			t.Errorf("PostgreSQL: %v", err)
		}
		if t.Failed() {
			s.showLog(t)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := s.initialize(); err != nil {
		t.Fatal(err)
	}
	s.Restart(t)
	return s
}

var schemas atomic.Int64

// Schema returns a name for a schema that no other call in this process gets.
func Schema() string { return fmt.Sprintf("test %d", schemas.Add(1)) }

// Stop ends the server in order, as a maintenance would: sessions are ended,
// what they did not commit is undone.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
}

// Kill ends the server as a loss of power would: its first process gets
// SIGKILL, and the others follow.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.process == nil {
		t.Fatal("PostgreSQL does not run")
	}
	s.process.kill()
	s.process, s.killed = nil, true
}

// Restart starts a server that was stopped or killed, on the same port, and
// returns when it takes connections.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.start(t.Context()); err != nil {
		s.showLog(t)
		t.Fatal(err)
	}
}

// Exec runs statements outside of what is tested.
func (s *Server) Exec(t testing.TB, statements string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	if _, err := c.Exec(t.Context(), statements); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) data() string { return filepath.Join(s.Dir, "data") }
func (s *Server) log() string  { return filepath.Join(s.Dir, "log") }

func (s *Server) initialize() error {
	secret := filepath.Join(s.Dir, "password")
	if err := os.WriteFile(secret, []byte(Password+"\n"), 0o600); err != nil {
		return err
	}
	if err := s.programs.own(s.Dir, secret); err != nil {
		return err
	}
	cmd := s.programs.command(s.programs.initdb, "-D", s.data(), "-U", superuser, "--pwfile", secret, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
	cmd.Dir = s.Dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return s.initializeReach()
}

// start makes attempts: another process may take the port that was found
// free, and what is left of a killed server needs a moment to end.
func (s *Server) start(ctx context.Context) error {
	var err error
	for range 20 {
		port := s.port
		if port == 0 {
			if port, err = listentest.FreePort(); err != nil {
				return err
			}
		}
		if err = s.launch(ctx, port); err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

func (s *Server) launch(ctx context.Context, port int) error {
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.programs.command(s.programs.postgres, append([]string{"-D", s.data(), "-p", strconv.Itoa(port),
		"-c", "unix_socket_directories=" + s.Dir,
		"-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "shared_buffers=64MB", "-c", "max_connections=60",
		"-c", "log_line_prefix=%t [%p] "}, s.reachSettings()...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, log, log
	p, err := begin(cmd)
	if err != nil {
		return err
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(superuser, Password), Path: database,
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), RawQuery: "sslmode=disable"}
	if err := answers(ctx, u.String(), p); err != nil {
		p.kill()
		return err
	}
	s.process, s.port, s.URL, s.killed = p, port, u.String(), false
	return nil
}

// answers waits until the server takes connections or ends.
func answers(ctx context.Context, url string, p *process) error {
	for {
		c, err := pgx.Connect(ctx, url)
		if err == nil {
			return c.Close(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return errors.New("PostgreSQL ended at once; its log says why")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) stop() error {
	if s.process == nil {
		return nil
	}
	p := s.process
	s.process = nil
	return p.interrupt()
}

// end stops the server for good. One that was killed is started once more: only
// an ordered end gives its shared memory back to the system.
func (s *Server) end() error {
	if s.killed {
		if err := s.start(context.Background()); err != nil {
			return err
		}
	}
	return s.stop()
}

func (s *Server) showLog(t testing.TB) {
	log, err := os.ReadFile(s.log())
	if err != nil {
		return // it never began
	}
	const most = 8 << 10
	t.Logf("PostgreSQL's log:\n%s", log[max(0, len(log)-most):])
}

// need skips the test for want of PostgreSQL, or fails it where all tests must run.
func need(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("SLUICE_TEST_ALL") == "1" {
		t.Fatalf("PostgreSQL is missing (make deps installs it): %v", err)
	}
	t.Skipf("PostgreSQL is missing (make deps installs it): %v", err)
}

// programs are the two that are needed, and who runs them.
type programs struct {
	initdb, postgres string
	owner            owner
}

// find looks in PATH, then for the newest of Debian's versions.
func find() (programs, error) {
	o, err := runAs()
	if err != nil {
		return programs{}, err
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			if p, err := inFolder(filepath.Dir(path)); err == nil {
				p.owner = o
				return p, nil
			}
		}
	}
	folders, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	for i := len(folders) - 1; err == nil && i >= 0; i-- {
		if p, err := inFolder(folders[i]); err == nil {
			p.owner = o
			return p, nil
		}
	}
	return programs{}, errors.New("there is no initdb in PATH or /usr/lib/postgresql/*/bin")
}

func inFolder(dir string) (programs, error) {
	p := programs{initdb: filepath.Join(dir, "initdb"), postgres: filepath.Join(dir, "postgres")}
	_, err := os.Stat(p.initdb)
	_, err2 := os.Stat(p.postgres)
	return p, errors.Join(err, err2)
}
