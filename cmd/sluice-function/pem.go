package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/sluice-iot/sluice/internal/config"
)

// pemFiles are the settings that may come as text, by the environment variables
// that hold it: where a platform's secrets are variables and there are no files.
var pemFiles = []struct{ variable, path, name string }{
	{"SLUICE_TLS_CERTIFICATE_PEM", "tls.certificate", "tls.crt"},
	{"SLUICE_TLS_KEY_PEM", "tls.key", "tls.key"},
	{"SLUICE_TLS_CA_PEM", "tls.ca", "ca.crt"},
}

// writePEM writes what those variables hold into a folder of its own that only
// this process's user reads, and adds the settings that name the files. The caller
// removes the folder, "" = there is none.
func (o *options) writePEM() (dir string, err error) {
	for _, f := range pemFiles {
		text := os.Getenv(f.variable)
		if text == "" {
			continue
		}
		if other := config.EnvName(f.path); os.Getenv(other) != "" {
			return dir, fmt.Errorf("environment variables %s and %s are both set: want one of them", f.variable, other)
		}
		if dir == "" {
			if dir, err = os.MkdirTemp("", "sluice-tls-"); err != nil {
				return "", err
			}
		}
		file := filepath.Join(dir, f.name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return dir, err
		}
		o.settings.Set(config.Flag{Path: f.path, Value: file, Name: f.variable})
	}
	return dir, nil
}
