package observe

import (
	"runtime"
	"runtime/debug"
)

var version = ""

// SetVersion says which version the linker was told, "" for none. Programs call it
// first in main, before anything else of this package.
func SetVersion(v string) { version = v }

// Version is the version of this build: what [SetVersion] was told, else what the Go
// tool recorded of the repository, else "unknown".
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return "unknown"
}

// GoVersion is the version of Go that this build was made with.
func GoVersion() string { return runtime.Version() }
