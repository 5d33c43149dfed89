module weigh

go 1.26
