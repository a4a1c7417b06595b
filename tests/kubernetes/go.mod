module github.com/sluice-iot/sluice/tests/kubernetes

go 1.26.8

replace github.com/sluice-iot/sluice => ../..

require (
	github.com/Azure/go-amqp v1.7.0
	github.com/sluice-iot/sluice v0.0.0-00010101000000-000000000000
)

require (
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/pgx/v5 v5.12.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)
