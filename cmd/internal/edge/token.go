package edge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/auth/oidc"
)

// tokenFile is a bearer token in a file that somebody else keeps fresh, such as
// Kubernetes or a login program. Safe for concurrent use.
type tokenFile struct {
	path string

	mu       sync.Mutex
	token    string
	modified time.Time
	size     int64
}

// openToken reads the file once, so that a mistake is seen at the start.
func openToken(path string) (*tokenFile, error) {
	f := &tokenFile{path: path}
	_, err := f.read(context.Background())
	return f, err
}

// read returns the token, reading the file anew when it is another.
func (f *tokenFile) read(context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		return "", fmt.Errorf("functions.token-file: %w", err)
	}
	if f.token != "" && info.ModTime().Equal(f.modified) && info.Size() == f.size {
		return f.token, nil
	}
	if info.Size() > oidc.MaxToken {
		return "", fmt.Errorf("functions.token-file: %s has %d bytes; expected a bearer token of at most %d", f.path, info.Size(), oidc.MaxToken)
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return "", fmt.Errorf("functions.token-file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("functions.token-file: " + f.path + " holds no bearer token; expected one line of printable characters")
	}
	f.token, f.modified, f.size = token, info.ModTime(), info.Size()
	return token, nil
}
