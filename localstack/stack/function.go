package stack

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/localstack/lambdahost"
	"github.com/sluice-iot/sluice/localstack/template"
)

// taskRoot is where Lambda unpacks archives.
const taskRoot = "/var/task"

// version is that of the functions, which their aliases name.
const version = "1"

// hosted is a function of the template.
type hosted struct {
	name string // in the template
	log  string
	host **lambdahost.Host
}

func (s *Stack) functions() []hosted {
	return []hosted{{"Identity", "identity", &s.Host}, {"Events", "events", &s.EventStore}, {"ManagementApi", "management", &s.Manager}}
}

// startFunctions hosts the functions of the template and what invokes them.
func (s *Stack) startFunctions(ctx context.Context) error {
	if err := unpack(s.o.Archive, s.data("task")); err != nil {
		return fmt.Errorf("%w: run make aws-package", err)
	}
	if err := copyFile(s.seedFile("identities.yaml"), s.data("task", "identities.yaml"), 0o600); err != nil {
		return err
	}
	s.template.Made("Logs", template.Resource{Ref: "local"})
	for _, f := range s.functions() {
		if err := s.startFunction(f); err != nil {
			return fmt.Errorf("the function %s: %w", f.name, err)
		}
	}
	var err error
	if s.Function, err = s.template.Output("FunctionsIdentity"); err != nil {
		return err
	}
	if s.EventsFunction, err = s.template.Output("FunctionsEvents"); err != nil {
		return err
	}
	if err := s.serve(s.Invoke, lambdahost.API(s.Host, s.EventStore, s.Manager)); err != nil {
		return err
	}
	if err := s.serve(s.Management, s.Manager.URL("url")); err != nil {
		return err
	}
	return s.follow(ctx)
}

// startFunction makes what SAM and CloudFormation would, and the host.
func (s *Stack) startFunction(f hosted) error {
	for _, role := range []string{"Role", "EventsRole", "ManagementRole"} {
		s.template.Made(role, template.Resource{Attributes: map[string]string{"Arn": "local"}})
	}
	p, err := s.template.Properties(f.name)
	if err != nil {
		return err
	}
	name, err := property(p, "FunctionName")
	if err != nil {
		return err
	}
	s.template.Made(f.name, template.Resource{Ref: name})
	s.template.Made(f.name+".Version", template.Resource{Attributes: map[string]string{"Version": version}})
	conf, err := s.functionConfig(f.log, p)
	if err != nil {
		return err
	}
	if *f.host, err = lambdahost.New(conf); err != nil {
		return err
	}
	s.closers = append(s.closers, (*f.host).Close)
	s.template.Made(f.name+".Alias", template.Resource{Ref: lambdahost.ARN(conf.Name, conf.Aliases[0])})
	return nil
}

// functionConfig turns the properties of a function into what the host needs.
func (s *Stack) functionConfig(log string, p map[string]any) (c lambdahost.Config, err error) {
	text := func(path ...string) string {
		v, wrong := property(p, path...)
		if wrong != nil && err == nil {
			err = wrong
		}
		return v
	}
	number := func(path ...string) int {
		n, wrong := strconv.Atoi(text(path...))
		if wrong != nil && err == nil {
			err = fmt.Errorf("%v: %w", path, wrong)
		}
		return n
	}
	out, openErr := os.OpenFile(s.data("logs", log+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if openErr != nil {
		return c, openErr
	}
	s.closers = append(s.closers, func() { out.Close() })
	c = lambdahost.Config{
		Name: text("FunctionName"), Program: s.data("task", text("Handler")), Dir: s.data("task"),
		Timeout: time.Duration(number("Timeout")) * time.Second, Instances: number("ReservedConcurrentExecutions"), Idle: s.o.Idle,
		Output: out, Log: s.log.With("function", log),
		Aliases: []string{text("AutoPublishAlias")},
	}
	if err := s.aliases(&c); err != nil {
		return c, err
	}
	environment, _ := p["Environment"].(map[string]any)
	variables, _ := environment["Variables"].(map[string]any)
	for name, v := range variables {
		value, ok := v.(string)
		if !ok {
			return c, fmt.Errorf("variable %s is no text", name)
		}
		if rest, ok := strings.CutPrefix(value, taskRoot+"/"); ok {
			value = s.data("task", rest)
		}
		c.Env = append(c.Env, name+"="+value)
	}
	// Lambda's own: credentials of the role, and a folder for temporary files. And where DynamoDB is.
	c.Env = append(c.Env, "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local", "TMPDIR="+s.data("tmp"), "SLUICE_REGISTRY_ENDPOINT=http://"+s.addresses.dynamo)
	return c, err
}

// aliases adds those that the template makes besides that of SAM.
func (s *Stack) aliases(c *lambdahost.Config) error {
	names, err := s.template.Names("AWS::Lambda::Alias")
	if err != nil {
		return err
	}
	for _, name := range names {
		p, err := s.template.Properties(name)
		if errors.Is(err, template.ErrNotMade) {
			continue // it is of a function that comes later
		}
		if err != nil {
			return err
		}
		if p["FunctionName"] != c.Name {
			continue
		}
		alias, err := property(p, "Name")
		if err != nil {
			return err
		}
		if p["FunctionVersion"] != version {
			return fmt.Errorf("the alias %s is of the version %v", alias, p["FunctionVersion"])
		}
		c.Aliases = append(c.Aliases, alias)
		s.template.Made(name, template.Resource{Ref: lambdahost.ARN(c.Name, alias)})
	}
	return nil
}

// follow starts the event source mapping and the schedules.
func (s *Stack) follow(ctx context.Context) error {
	source, err := s.template.Properties("NoticesSource")
	if err != nil {
		return err
	}
	batch, err := strconv.Atoi(fmt.Sprint(source["BatchSize"]))
	if err != nil {
		return err
	}
	if source["FunctionName"] != s.Host.ARN("notices") {
		return fmt.Errorf("the template's queue invokes %v, want the alias notices", source["FunctionName"])
	}
	notices := lambdahost.Queue{Client: s.SQS, URL: s.Notices, ARN: fmt.Sprint(source["EventSourceArn"]), Alias: "notices", Batch: int32(batch)}
	s.group.Go(func() { s.Host.Follow(ctx, notices) })
	for rule, host := range map[string]*lambdahost.Host{"Rotation": s.Host, "Expiry": s.EventStore} {
		cron, err := s.makeSchedule(ctx, rule, host)
		if err != nil {
			return err
		}
		s.group.Go(func() { host.FollowEvents(ctx, cron) })
	}
	return nil
}

func (s *Stack) serve(address string, h http.Handler) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	s.group.Go(func() { srv.Serve(ln) })
	s.closers = append(s.closers, func() { srv.Close() })
	return nil
}

// unpack unpacks an archive of a function.
func unpack(archive, dir string) error {
	r, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer r.Close()
	for _, f := range r.File {
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("%s: the name %q leads elsewhere", archive, f.Name)
		}
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		from, err := f.Open()
		if err != nil {
			return err
		}
		err = write(path, from, f.Mode().Perm())
		from.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string, mode os.FileMode) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return write(to, f, mode)
}

func write(path string, from io.Reader, mode os.FileMode) error {
	to, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		return err
	}
	return to.Close()
}
