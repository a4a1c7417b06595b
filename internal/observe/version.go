package observe

import (
	"runtime"
	"runtime/debug"
)

// version is set by the linker:
// -X github.com/sluice-iot/sluice/internal/observe.version=v1.2.3
var version = ""

// Version is the version of this build: what the linker was told, else what the Go
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
