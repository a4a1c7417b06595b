package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	awslambda "github.com/aws/aws-lambda-go/lambda"

	"github.com/sluice-iot/sluice/functions/host"
	"github.com/sluice-iot/sluice/functions/host/lambda"
	"github.com/sluice-iot/sluice/internal/observe"
)

// What a deployment on Lambda says in its environment.
const (
	// acceptVariable is a list for [lambda.ParseAccept].
	acceptVariable = "SLUICE_LAMBDA_ACCEPT"
	// rolesVariable is a list for [lambda.ParseRoles].
	rolesVariable = "SLUICE_LAMBDA_ROLES"
	// directVariable is a list for [lambda.ParseKinds]: whom IAM lets invoke directly.
	directVariable = "SLUICE_LAMBDA_DIRECT"
)

// serveLambda answers invocations; the process ends when the platform ends it.
func (p *program) serveLambda() error {
	h, err := p.lambdaHandler()
	if err != nil {
		return err
	}
	p.log.Info("ready", "version", observe.Version(), "functions", p.parts.types, "management", p.parts.management)
	awslambda.StartWithOptions(h)
	return nil
}

func (p *program) lambdaHandler() (*lambda.Handler, error) {
	accept, roles := lambda.DefaultAccept, lambda.Roles(nil)
	var err error
	if text := os.Getenv(acceptVariable); text != "" {
		if accept, err = lambda.ParseAccept(text); err != nil {
			return nil, fmt.Errorf("environment variable %s: %w", acceptVariable, err)
		}
	}
	if text := os.Getenv(rolesVariable); text != "" {
		if roles, err = lambda.ParseRoles(text); err != nil {
			return nil, fmt.Errorf("environment variable %s: %w", rolesVariable, err)
		}
	}
	var direct []host.Kind
	if text := os.Getenv(directVariable); text != "" {
		if direct, err = lambda.ParseKinds(text); err != nil {
			return nil, fmt.Errorf("environment variable %s: %w", directVariable, err)
		}
	}
	api, err := p.management(true)
	if err != nil {
		return nil, err
	}
	endpoint, err := host.New(host.Config{
		Name: p.cfg.Name, Functions: p.functions(), Caller: p.callers(roles.Caller()), Log: p.log, Management: api,
	})
	if err != nil {
		return nil, err
	}
	conf := lambda.Config{Endpoint: endpoint, Log: p.log, Accept: accept, Direct: direct, Maintain: p.maintain,
		Overlap: max(p.cfg.Assertions.Overlap, 1)} // 0 is none here, and the default there
	// What a queue brings is not brought to a queue again: the routers take it, or
	// this queue keeps it.
	routers := *p.cfg
	routers.Notices.Broker = ""
	if p.relay, err = p.newPoster(&routers); err != nil {
		return nil, err
	}
	if p.relay != nil {
		conf.Facts = p.relay
	}
	return lambda.New(conf)
}

// maintain does what a schedule asks for, besides rotating keys.
func (p *program) maintain(ctx context.Context) error {
	var errs []error
	if p.id != nil {
		errs = append(errs, p.id.Sweep(ctx))
	}
	if p.events != nil {
		errs = append(errs, p.events.Expire(ctx))
	}
	return errors.Join(errs...)
}
