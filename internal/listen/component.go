package listen

import (
	"path/filepath"
	"time"
)

// ComponentFiles names the files of a component's certificate in dir: kind, a
// hyphen, instance, and .crt or .key.
func ComponentFiles(dir, kind, instance string) Files {
	base := filepath.Join(dir, kind+"-"+instance)
	return Files{Certificate: base + ".crt", Key: base + ".key", CA: filepath.Join(dir, caFile)}
}

// IssueComponent writes the certificate by which a component proves itself (CN =
// instance, OU = kind), good for both sides of TLS and for localhost and the given
// hosts. An old one is replaced.
func (a *Authority) IssueComponent(dir, kind, instance string, hosts []string, life time.Duration) (Files, error) {
	f := ComponentFiles(dir, kind, instance)
	leaf := Leaf{CommonName: instance, Kind: kind, Hosts: append(LocalHosts(), hosts...), Life: life}
	return f, a.Issue(f, leaf, time.Now())
}
