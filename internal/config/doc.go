// Package config reads the program's configuration: one YAML file, the
// environment (SLUICE_ and the path in capitals, with _ between) and flags, each
// over the one before it, and remembers where every value came from. It also finds,
// creates and locks the data folder.
//
// It opens no listener and reads no certificate; internal/listen does. An unknown
// key in the file is an error; see strictyaml.
//
//	loaded, err := config.Load(config.Options{File: "sluice.yaml", Env: os.Environ()})
//	if err != nil {
//		return err // one line, with file, line number and the nearest known key
//	}
//	lock, err := config.OpenData(loaded.Data)
//	defer lock.Close()
//	for _, l := range loaded.ListenersOf(config.RoleNorthbound) { ... }
package config
