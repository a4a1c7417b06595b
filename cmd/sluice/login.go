package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/sluice-iot/sluice/internal/config"
)

// loginFlags say where a server is, and as whom to log in there.
type loginFlags struct{ data, url, user, password, ca string }

// add declares the flags; url, user and password tell what is meant by them,
// scheme is that of a URL for which the CA counts.
func (f *loginFlags) add(flags *pflag.FlagSet, url, user, password, scheme string) {
	flags.StringVar(&f.data, "data", "", "data `folder` of an installation on this machine")
	flags.StringVar(&f.url, "url", "", url)
	flags.StringVar(&f.user, "user", "", user)
	flags.StringVar(&f.password, "password", "", password)
	flags.StringVar(&f.ca, "ca", "", "CA certificate `file` to believe, for "+scheme)
}

// complete takes what was not given from the environment, then from operator.env
// of the data folder: prefix with URL, USER and PASSWORD, and SLUICE_CA. What was
// found by chance says nothing to a server that was named, and a user that was
// given does not get another one's secret.
func (f *loginFlags) complete(prefix, usualURL string) error {
	operator, looked := findOperator(f.data)
	given := func(name string) string { return os.Getenv(prefix + name) }
	f.url = cmp.Or(f.url, given("URL"))
	if f.url != "" && f.url != operator[prefix+"URL"] && f.data == "" {
		operator = env{}
	}
	f.url = cmp.Or(f.url, operator[prefix+"URL"], usualURL)
	f.ca = cmp.Or(f.ca, os.Getenv("SLUICE_CA"), operator["SLUICE_CA"])
	f.user = cmp.Or(f.user, given("USER"), operator[prefix+"USER"])
	f.password = cmp.Or(f.password, given("PASSWORD"))
	if f.user == operator[prefix+"USER"] {
		f.password = cmp.Or(f.password, operator[prefix+"PASSWORD"])
	}
	if f.user == "" || f.password == "" {
		if f.user != "" {
			return fmt.Errorf("who are you? %s needs --password or %sPASSWORD", f.user, prefix)
		}
		return fmt.Errorf("who are you? give --user and --password (there is no %sUSER with its secret for %s in %s)", prefix, f.url, looked)
	}
	return nil
}

// findOperator reads operator.env of a data folder. It is empty where there is none.
func findOperator(data string) (operator env, looked string) { return findEnv(data, operatorFile) }

// findEnv reads a file of a data folder: of the named one, or of the one that is
// found. It is empty where there is none.
func findEnv(data, file string) (found env, looked string) {
	opts := config.Options{Env: os.Environ(), Find: true}
	if data != "" {
		opts.Flags = []config.Flag{{Path: "data", Value: data, Name: "--data"}}
	}
	l, err := config.Load(opts)
	if err != nil {
		return env{}, ""
	}
	looked = filepath.Join(l.Data, file)
	if found, err = readEnv(looked); err != nil {
		return env{}, looked
	}
	return found, looked
}
