module example.com/weekend

go 1.21
