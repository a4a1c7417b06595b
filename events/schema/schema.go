package schema

import "embed"

// Files holds <type>.json for every type with data.
//
//go:embed *.json
var Files embed.FS
